// SPDX-License-Identifier: Apache-2.0
// 16-bit operands that are cast to float32 for one operator, which can read them as they are:
//   MatMul | Gemm (x, Cast(constant float16 | bfloat16 matrix))   =>   narrow.HalfGemm
//   Gather (Cast(constant float16 | bfloat16), indices)           =>   Cast(Gather(..))
// A Transpose of the matrix on either side of the Cast becomes transB.
#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

bool is_transposed(const Graph& graph, const Node& node) {
  const auto& shape = graph.value(node.inputs[0]).shape;
  return node.is("Transpose") && shape && shape->size() == 2 &&
         node.ints_or("perm", {1, 0}) == std::vector<int64_t>{1, 0};
}

struct Stored {
  ValueId matrix = kNoId;
  bool transposed = false;
};

/// The 16-bit constant behind a float32 matrix.
Stored stored_matrix(const Graph& graph, ValueId value) {
  Stored found;
  bool has_cast = false;
  for (const Node* node = graph.producer(value); node != nullptr; node = graph.producer(value)) {
    if (!has_cast && node->is("Cast")) {
      has_cast = true;
    } else if (is_transposed(graph, *node)) {
      found.transposed = !found.transposed;
    } else {
      return {};
    }
    value = node->inputs[0];
  }
  const Tensor* matrix = value == kNoId ? nullptr : graph.constant(value);
  if (!has_cast || matrix == nullptr || matrix->rank() != 2) return {};
  const bool half = matrix->dtype() == DType::float16 || matrix->dtype() == DType::bfloat16;
  found.matrix = half ? value : kNoId;
  return found;
}

bool is_row_bias(const Graph& graph, ValueId bias) {
  const Value& value = graph.value(bias);
  return value.dtype == DType::float32 && value.shape && value.shape->size() == 1;
}

bool absorb_weight(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const bool gemm = node.is("Gemm");
  if (!gemm && !node.is("MatMul")) return false;
  if (graph.value(node.inputs[0]).dtype != DType::float32) return false;
  const Stored stored = stored_matrix(graph, node.inputs[1]);
  if (stored.matrix == kNoId) return false;
  if (gemm) {
    if (node.int_or("transA", 0) != 0 || node.float_or("alpha", 1) != 1) return false;
    const ValueId bias = node.input(2);
    if (bias != kNoId && (node.float_or("beta", 1) != 1 || !is_row_bias(graph, bias))) return false;
  }
  const auto& x = graph.value(node.inputs[0]).shape;
  if (!x || x->size() < 2) return false;
  const bool trans_b = (node.int_or("transB", 0) != 0) != stored.transposed;
  graph.set_op(id, ops::kHalfGemm, ops::kDomain);
  graph.set_input(id, 1, stored.matrix);
  graph.attributes(id) = {{"transB", int64_t{trans_b ? 1 : 0}}};
  return true;
}

/// An embedding is looked up in 16 bits; what was found is cast.
bool absorb_table(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (!node.is("Gather")) return false;
  const Node* cast = graph.producer(node.inputs[0]);
  if (cast == nullptr || !cast->is("Cast") || !graph.value(cast->inputs[0]).is_constant()) {
    return false;
  }
  const DType stored = graph.value(cast->inputs[0]).dtype;
  if (stored != DType::float16 && stored != DType::bfloat16) return false;
  const ValueId wide = node.outputs[0];
  if (graph.value(wide).is_output) return false;  // it would lose its name
  const std::vector<ValueId> inputs{cast->inputs[0], node.inputs[1]};
  const Attributes to = cast->attributes;
  const std::string name = graph.value(wide).name;
  const auto shape = graph.value(wide).shape;
  const NodeId gather = graph.add_node("Gather", inputs, {graph.unique_name(name + "_stored")},
                                       graph.node(id).attributes);
  const ValueId found = graph.node(gather).outputs[0];
  graph.mutable_value(found).dtype = stored;
  graph.mutable_value(found).shape = shape;
  const NodeId widen = graph.add_node("Cast", {found}, {graph.unique_name(name + "_wide")}, to);
  const ValueId widened = graph.node(widen).outputs[0];
  graph.mutable_value(widened).dtype = graph.value(wide).dtype;
  graph.mutable_value(widened).shape = shape;
  graph.replace_uses(wide, widened);
  graph.remove_node(id);
  return true;
}

}  // namespace

int64_t absorb_casts(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    if (absorb_weight(graph, id) || absorb_table(graph, id)) ++changes;
  }
  if (changes > 0) {
    graph.sort();
    graph.remove_dead();
  }
  return changes;
}

}  // namespace narrow
