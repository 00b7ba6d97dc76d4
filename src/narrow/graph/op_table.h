// SPDX-License-Identifier: Apache-2.0
// The operators that narrow knows, as rows of a table: arity, the lowest opset that can express the
// canonical form, shape inference. Canonical form is the newest ONNX form of each operator: readers
// upgrade older files to it, the writer downgrades (formats/onnx). To add an operator: a row in a
// table of graph/ops/, its implementation row in runtime/ops/, a test each.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/graph/known_value.h"

namespace narrow {

/// What shape inference sees of one node. Every accessor copes with absent and unknown inputs.
class InferContext {
 public:
  InferContext(const Graph& graph, const Node& node) : graph_(graph), node_(node) {
    outputs_.resize(node.outputs.size());
  }
  struct Output {
    DType dtype = DType::undefined;
    std::optional<SymbolicShape> shape;
    Tensor constant;  // small results of shape arithmetic computed on the way (Shape, Gather, ...)
    std::optional<KnownValue> value;  // the same when only some elements are known
  };
  const Graph& graph() const { return graph_; }
  const Node& node() const { return node_; }
  bool has_input(size_t i) const { return node_.input(i) != kNoId; }
  DType dtype(size_t i) const;
  /// nullptr when the rank is unknown or the input absent.
  const SymbolicShape* shape(size_t i) const;
  /// The input's value where it is known: an initializer, or a shape computation folded on the way.
  const Tensor* constant(size_t i) const;
  void set_output(size_t i, DType dtype, std::optional<SymbolicShape> shape);
  /// Also states the value; only for small integer tensors that shape arithmetic needs.
  void set_constant(size_t i, Tensor value);
  /// The input's value as far as it is known; nullopt for large tensors and unknown ones.
  std::optional<KnownValue> value(size_t i) const;
  /// Sets dtype, shape and (partial) value of an output.
  void set_value(size_t i, KnownValue value);
  /// Throws invalid_argument with the node named.
  [[noreturn]] void fail(const std::string& message) const;

  std::vector<Output>& outputs() { return outputs_; }
  /// Values of non-initializers known so far, by ValueId, filled by infer_shapes(). Either may be
  /// null.
  const std::vector<Tensor>* known_values = nullptr;
  const std::vector<std::optional<KnownValue>>* partial_values = nullptr;
  int depth = 0;  // of nested subgraphs

 private:
  const Graph& graph_;
  const Node& node_;
  std::vector<Output> outputs_;
};

using InferFunction = void (*)(InferContext&);

struct OpInfo {
  const char* domain;
  const char* name;
  int min_inputs;
  int max_inputs;  // -1: variadic
  int min_outputs;
  int max_outputs;
  /// The lowest opset of the domain whose schema can say what the canonical form says with default
  /// values of newer attributes, after the writer's own rewriting (constant axes back into an
  /// attribute, for instance).
  int since;
  InferFunction infer;
  /// Bit i: input i may be absent although more than i inputs are required (a zero_point before
  /// other inputs).
  uint32_t optional_inputs = 0;
};

/// nullptr when unknown.
const OpInfo* find_op(std::string_view domain, std::string_view name);
std::vector<const OpInfo*> all_ops();

struct UnsupportedNode {
  std::string node;
  std::string op;  // "com.example::Foo"
};
/// All nodes (subgraphs included) whose operator has no row.
std::vector<UnsupportedNode> unsupported_nodes(const Graph& graph);

/// Fills dtype and shape of every value, from the graph's inputs onwards; existing annotations that
/// contradict are an error naming the node. Symbolic dimensions are carried. If `input_dims` is
/// given, inputs get these concrete shapes first (by position; an empty optional leaves one as is).
/// Returns the small integer values that were computed on the way, by ValueId.
std::vector<Tensor> infer_shapes(Graph& graph,
                                 std::span<const std::optional<Dims>> input_dims = {});

/// Checks the invariants: single assignment, known operators and arities, dtypes set where
/// inference can, inputs defined before use, uses consistent. Throws internal (or corrupt_data for
/// a graph just read) naming the node. Runs after each pass in debug builds and in tests.
void verify(const Graph& graph);

}  // namespace narrow
