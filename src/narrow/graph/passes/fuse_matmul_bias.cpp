// SPDX-License-Identifier: Apache-2.0
// MatMul(x [M, K], constant w [K, N]) -> Add(constant [N])   =>   Gemm(x, w, bias): the form in
// which batch norm folds into the product and its bias quantizes with it.
#include "narrow/graph/passes/passes.h"
#include "narrow/graph/passes/rewrite.h"

namespace narrow {
namespace {

struct Match {
  NodeId add = kNoId;
  ValueId bias = kNoId;
};

/// One number for each column, and no more axes than the product.
bool is_row(const Tensor& t, int64_t columns) {
  return t.rank() >= 1 && t.rank() <= 2 && t.elements() == columns && t.dims().back() == columns;
}

Match select(const Graph& graph, const Node& node) {
  if (!node.is("MatMul")) return {};
  const Tensor* w = graph.constant(node.inputs[1]);
  const auto& x = graph.value(node.inputs[0]).shape;
  if (w == nullptr || w->rank() != 2 || !is_float(w->dtype()) || !x || x->size() != 2) return {};
  const NodeId add = graph.single_user(node.outputs[0]);
  if (add == kNoId || !graph.node(add).is("Add")) return {};
  const auto& operands = graph.node(add).inputs;
  const ValueId other = operands[0] == node.outputs[0] ? operands[1] : operands[0];
  const Tensor* bias = graph.constant(other);
  if (bias == nullptr || bias->dtype() != w->dtype() || !is_row(*bias, w->dim(1))) return {};
  return {add, other};
}

void fuse(Graph& graph, NodeId id, const Match& match) {
  ValueId bias = match.bias;
  const Tensor& row = graph.value(bias).constant;
  if (row.rank() != 1) {
    const std::string name = graph.unique_name(graph.value(bias).name + "_row");
    bias = graph.add_initializer(name, row.reshaped({row.elements()}));
  }
  graph.set_op(id, "Gemm");
  graph.set_input(id, 2, bias);
  graph.replace_uses(graph.node(match.add).outputs[0], graph.node(id).outputs[0]);
  graph.remove_node(match.add);
}

}  // namespace

int64_t fuse_matmul_bias(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.alive(id)) continue;
    const Match match = select(graph, graph.node(id));
    if (match.add == kNoId) continue;
    fuse(graph, id, match);
    ++changes;
  }
  return changes;
}

}  // namespace narrow
