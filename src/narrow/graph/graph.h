// SPDX-License-Identifier: Apache-2.0
// The one intermediate representation: ONNX operator semantics (canonical form: the newest schema
// the operator table implements, see op_table.h), values in single assignment, edited only through
// functions that keep uses and producers consistent.
//
//   Graph g;
//   ValueId x = g.add_input("x", DType::float32, {Dim::symbol("N"), 4});
//   ValueId w = g.add_initializer("w", weights);
//   NodeId n = g.add_node("MatMul", {x, w}, {"y"});
//   g.add_output(g.node(n).outputs[0]);
//
// Ids stay valid until the thing is removed; iteration goes over live nodes only. Nodes are kept in
// a topological order after sort().
//
// Subgraphs (If, Loop, Scan) are closed: an outer value that a body reads is a trailing input of
// the node and a trailing graph input of the body; the node's attribute kCaptures says how many.
// Readers make it so, writers undo it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "narrow/core/tensor.h"

namespace narrow {

class Graph;
using ValueId = int32_t;
using NodeId = int32_t;
inline constexpr int32_t kNoId = -1;  // an absent optional input or output
inline constexpr const char* kCaptures = "narrow_captures";

/// One dimension: known, named (equal names are equal sizes), or unknown.
struct Dim {
  int64_t value = -1;
  std::string name;

  Dim() = default;
  Dim(int64_t v) : value(v) {}  // NOLINT: a plain number is a dimension
  static Dim symbol(std::string name) {
    Dim d;
    d.name = std::move(name);
    return d;
  }
  bool known() const { return value >= 0; }
  friend bool operator==(const Dim&, const Dim&) = default;
};
using SymbolicShape = std::vector<Dim>;

std::string to_string(const SymbolicShape& shape);
/// The concrete dimensions, or nullopt if one is not known.
std::optional<Dims> concrete(const SymbolicShape& shape);
SymbolicShape symbolic(std::span<const int64_t> dims);

using Attribute = std::variant<int64_t, float, std::string, Tensor, std::shared_ptr<Graph>,
                               std::vector<int64_t>, std::vector<float>, std::vector<std::string>>;

/// Attributes in the order of their names, so that what is written does not depend on history.
using Attributes = std::map<std::string, Attribute, std::less<>>;

struct Use {
  NodeId node;
  int index;  // which input
  friend bool operator==(const Use&, const Use&) = default;
};

struct Value {
  std::string name;
  DType dtype = DType::undefined;
  std::optional<SymbolicShape> shape;  // nullopt: even the rank is unknown
  NodeId producer = kNoId;
  std::vector<Use> uses;  // by nodes of this graph
  Tensor constant;        // defined for initializers
  bool is_input = false;  // graph input (an initializer may be one too in old files: not here)
  bool is_output = false;
  bool alive = true;
  bool is_constant() const { return constant.defined(); }
};

struct Node {
  std::string name;    // unique within the graph
  std::string domain;  // "" is ONNX, "narrow", "com.microsoft"
  std::string op;
  std::vector<ValueId> inputs;   // kNoId where an optional one is absent
  std::vector<ValueId> outputs;  // likewise
  Attributes attributes;
  std::string doc;
  bool alive = true;

  bool is(std::string_view op_type, std::string_view op_domain = "") const {
    return op == op_type && domain == op_domain;
  }
  ValueId input(size_t i) const { return i < inputs.size() ? inputs[i] : kNoId; }
  ValueId output(size_t i) const { return i < outputs.size() ? outputs[i] : kNoId; }

  bool has(std::string_view key) const { return attributes.find(key) != attributes.end(); }
  /// The attribute, or `fallback` when absent; throws corrupt_data when it has another type.
  int64_t int_or(std::string_view key, int64_t fallback) const;
  float float_or(std::string_view key, float fallback) const;
  std::string string_or(std::string_view key, std::string fallback) const;
  std::vector<int64_t> ints_or(std::string_view key, std::vector<int64_t> fallback) const;
  std::vector<float> floats_or(std::string_view key, std::vector<float> fallback) const;
  const Tensor* tensor(std::string_view key) const;
  std::shared_ptr<Graph> graph(std::string_view key) const;
};

class Graph {
 public:
  std::string name = "main";
  std::string doc;
  /// Key-value metadata of the model (ONNX metadata_props), kept across a read and a write.
  std::map<std::string, std::string> metadata;
  /// Opset imports of the file this came from, by domain; informative: the graph itself is
  /// canonical.
  std::map<std::string, int64_t> source_opsets;
  std::string producer_name;
  std::string producer_version;

  Graph() = default;
  Graph(const Graph& other);  // deep for structure, shared for tensor storage
  Graph& operator=(const Graph& other);
  Graph(Graph&&) noexcept = default;
  Graph& operator=(Graph&&) noexcept = default;

  // --- values -------------------------------------------------------------------------------
  ValueId add_input(std::string name, DType dtype, std::optional<SymbolicShape> shape);
  ValueId add_initializer(std::string name, Tensor tensor);
  /// A value without producer yet (readers); `name` must be new.
  ValueId add_value(std::string name, DType dtype = DType::undefined,
                    std::optional<SymbolicShape> shape = std::nullopt);
  void add_output(ValueId value);
  /// `replacement` becomes the graph output in the place of `old` and takes over its name.
  void replace_output(ValueId old, ValueId replacement);
  /// Makes the value a constant; it must have no producer after this (the producer loses the
  /// output).
  void set_constant(ValueId value, Tensor tensor);
  void rename_value(ValueId value, std::string name);

  const Value& value(ValueId id) const;
  /// For dtype and shape only; structure changes through the functions below.
  Value& mutable_value(ValueId id);
  std::optional<ValueId> find_value(std::string_view name) const;
  const std::vector<ValueId>& inputs() const { return inputs_; }
  const std::vector<ValueId>& outputs() const { return outputs_; }
  size_t value_capacity() const { return values_.size(); }
  std::vector<ValueId> live_values() const;

  // --- nodes --------------------------------------------------------------------------------
  /// Appends a node whose outputs are new values of the given names ("" makes an absent output). An
  /// empty node name is derived from the operator and the first output. Names made unique.
  NodeId add_node(std::string op, std::vector<ValueId> inputs, std::vector<std::string> outputs,
                  Attributes attributes = {}, std::string domain = "", std::string name = "");
  /// Same with output values that exist and have no producer (readers).
  NodeId add_node_onto(std::string op, std::vector<ValueId> inputs, std::vector<ValueId> outputs,
                       Attributes attributes = {}, std::string domain = "", std::string name = "");
  /// Removes the node; its outputs must be unused and no graph outputs. They are removed too.
  void remove_node(NodeId id);
  void set_input(NodeId node, size_t index, ValueId value);
  void add_node_input(NodeId node, ValueId value);
  void set_op(NodeId node, std::string op, std::string domain = "");
  void set_doc(NodeId node, std::string doc);
  Attributes& attributes(NodeId id);
  /// Every use of `from` (graph outputs included) becomes a use of `to`.
  void replace_uses(ValueId from, ValueId to);

  const Node& node(NodeId id) const;
  /// Whether the node has not been removed since its id was taken.
  bool alive(NodeId id) const { return nodes_[static_cast<size_t>(id)].alive; }
  /// Live nodes in order.
  std::vector<NodeId> nodes() const;
  size_t node_capacity() const { return nodes_.size(); }
  size_t num_nodes() const;
  std::optional<NodeId> find_node(std::string_view name) const;

  // --- convenience --------------------------------------------------------------------------
  /// The node producing a value, or nullptr.
  const Node* producer(ValueId value) const;
  NodeId producer_id(ValueId value) const;
  /// The only node that uses the value, if there is exactly one use and it is no graph output.
  NodeId single_user(ValueId value) const;
  /// The constant of an input, or nullptr (absent or not constant).
  const Tensor* constant(ValueId value) const;
  std::string unique_name(std::string_view wanted) const;

  /// Topological order, stable with respect to the current one; throws corrupt_data naming the
  /// nodes of a cycle.
  void sort();
  /// Removes nodes and constants that reach no output; returns how many nodes went.
  int64_t remove_dead();

 private:
  Node& mutable_node(NodeId id);
  void drop_use(ValueId value, NodeId node, int index);
  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<NodeId> order_;
  std::vector<ValueId> inputs_;
  std::vector<ValueId> outputs_;
  std::map<std::string, ValueId, std::less<>> value_names_;
  std::map<std::string, NodeId, std::less<>> node_names_;
  /// Where the search for a free suffix goes on, so that a thousand equal names are no million
  /// tries.
  mutable std::map<std::string, int, std::less<>> value_suffixes_;
  std::map<std::string, int, std::less<>> node_suffixes_;
};

}  // namespace narrow
