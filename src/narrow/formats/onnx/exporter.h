// SPDX-License-Identifier: Apache-2.0
// From a Graph to the messages of a file at a given opset: the way back of builder.h.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "narrow/formats/onnx/proto.h"

namespace narrow::onnx {

/// What the rows of the downgrade table see of a graph being written.
class GraphExporter {
 public:
  explicit GraphExporter(const Graph& graph) : graph_(graph) {}

  /// The lowest opset of the domain "" that can express the graph, its bodies included; `reason`
  /// names the node that asks for it.
  int64_t lowest_opset(std::string* reason) const;

  /// The messages at this opset. `outer` is the exporter of the enclosing graph.
  ProtoGraph to_proto(int64_t opset, const GraphExporter* outer = nullptr,
                      const std::vector<std::string>& captured = {});

  /// Domains of all nodes, bodies included.
  static void collect_domains(const Graph& graph, std::set<std::string>& domains);

  // --- for the rows; values by the names in the file ------------------------------------------
  const Tensor* constant_of(const std::string& name) const;
  DType dtype_of(const std::string& name) const;
  const SymbolicShape* shape_of(const std::string& name) const;
  /// Adds an initializer and returns its name.
  std::string constant(const std::string& hint, Tensor tensor);

 private:
  void name_values(const GraphExporter* outer, const std::vector<std::string>& captured);
  bool is_taken(const std::string& name) const;
  bool is_outer_constant(const Value& value) const;
  ProtoNode plain_node(const Node& node) const;
  ProtoNode to_node(const Node& node, int64_t opset);
  ProtoValueInfo to_info(ValueId id) const;
  void add_outputs(ProtoGraph& proto);
  void add_initializers(ProtoGraph& proto);
  const Value* find(const std::string& name) const;

  const Graph& graph_;
  const GraphExporter* outer_ = nullptr;
  std::vector<std::string> names_;  // by ValueId
  std::unordered_map<std::string, ValueId> ids_;
  std::unordered_set<ValueId> inherited_;  // constants that stand in an outer graph
  std::unordered_set<std::string> body_reads_;
  std::vector<ProtoTensor> added_;
};

}  // namespace narrow::onnx
