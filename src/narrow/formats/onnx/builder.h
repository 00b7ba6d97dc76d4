// SPDX-License-Identifier: Apache-2.0
// From parsed messages to a Graph: names become values, nodes are sorted, upgraded and added one by
// one, constants become initializers, subgraphs are closed.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "narrow/formats/onnx/onnx.h"
#include "narrow/formats/onnx/proto.h"
#include "narrow/graph/op_table.h"

namespace narrow::onnx {

/// An outer value that a body reads: becomes an input of the body.
struct Capture {
  std::string name;
  DType dtype = DType::undefined;
  std::optional<SymbolicShape> shape;
};

/// Builds the graph of one GraphProto. The rows of the upgrade tables see this class: they edit the
/// node they are given and add nodes before and behind it.
class GraphBuilder {
 public:
  /// `depth` counts the graphs around this one.
  GraphBuilder(ProtoGraph proto, const OnnxReadOptions& options, int depth = 0)
      : proto_(std::move(proto)), options_(options), depth_(depth) {}

  /// `captures` become trailing inputs, `constants` (of outer graphs) initializers.
  Graph build(const std::vector<Capture>& captures = {},
              const std::vector<ProtoTensor>& constants = {});

  // --- for the rows --------------------------------------------------------------------------
  /// Adds the node, which is in canonical form, to the graph.
  void emit(const ProtoNode& node);
  /// Queues a node to stand behind the one that is being upgraded.
  void emit_after(ProtoNode node) { after_.push_back(std::move(node)); }
  /// Adds a node with one output, named after `hint`, and returns that name.
  std::string emit_value(const std::string& hint, const std::string& op,
                         std::vector<std::string> inputs,
                         std::map<std::string, ProtoValue> attributes = {});
  /// Adds an initializer and returns its name.
  std::string constant(const std::string& hint, Tensor tensor);
  /// A name that nothing in this graph has.
  std::string fresh_name(const std::string& hint);

  /// The value of an initializer, or nullptr.
  const Tensor* constant_of(const std::string& name) const;
  DType dtype_of(const std::string& name) const;
  /// nullptr if the rank is not known.
  const SymbolicShape* shape_of(const std::string& name) const;
  /// Whether a node, a subgraph or the graph's outputs read this value.
  bool is_used(const std::string& name) const { return used_.count(name) > 0; }
  const OnnxReadOptions& options() const { return options_; }

 private:
  void declare_inputs(const std::vector<Capture>& captures);
  void declare_initializers(const std::vector<ProtoTensor>& constants);
  void take_constant_nodes();
  void note_uses();
  std::vector<size_t> sorted_nodes() const;
  void add_outputs();
  void claim(const std::string& name);
  ValueId resolve(const std::string& name, const ProtoNode& node) const;
  void add_tensor(const ProtoTensor& tensor);
  Attribute to_attribute(const std::string& key, const ProtoValue& value, const ProtoNode& node,
                         const std::vector<Capture>& captures,
                         const std::vector<ProtoTensor>& constants);
  std::string unique_node_name(const ProtoNode& node);
  void infer(NodeId id);
  void annotate(ValueId id);

  ProtoGraph proto_;
  OnnxReadOptions options_;
  int depth_;
  Graph graph_;
  std::unordered_set<std::string> names_;       // of all values, those to come included
  std::unordered_set<std::string> node_names_;  // likewise
  std::unordered_map<std::string, int64_t> next_suffix_;
  std::unordered_set<std::string> used_;
  std::unordered_map<std::string, const ProtoValueInfo*> infos_;
  std::unordered_map<std::string, std::string> unreadable_;  // initializer -> why
  std::vector<ProtoNode> after_;
  // Small values that inference computed on the way, by ValueId.
  std::vector<Tensor> known_;
  std::vector<std::optional<KnownValue>> partial_;
};

/// The first output's name, or the operator's where it has none: what new values are named after.
std::string result_name(const ProtoNode& node);

/// Makes it an operator of the newest opset of the domain "".
void to_onnx(ProtoNode& node, std::string op);

/// The names that the graph reads and does not define, its own subgraphs included, in order of
/// appearance.
std::vector<std::string> free_names(const ProtoGraph& graph);

/// Calls f on every subgraph among the node's attributes.
template <class Node, class F>
void each_subgraph(Node& node, F&& f) {
  for (auto& [key, attribute] : node.attributes) {
    if (auto* body = std::get_if<std::shared_ptr<ProtoGraph>>(&attribute.value)) f(**body);
  }
}

}  // namespace narrow::onnx
