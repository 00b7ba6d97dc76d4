// SPDX-License-Identifier: Apache-2.0
// Float convolutions and matrix products take the activation and the residual addition behind them
// into their own node (narrow.FusedConv, narrow.FusedGemm), where libraries run them as an
// epilogue:
//
//   Conv -> [Add(residual)] -> [Relu | Clip]   =>   FusedConv(x, w, bias, residual)
//
// A plan of the runtime, never part of a file: run it after lowering.
#include "narrow/graph/passes/passes.h"

#include <cmath>
#include <limits>
#include <optional>

#include "narrow/graph/lowered_ops.h"

namespace narrow {
namespace {

struct Epilogue {
  ValueId residual = kNoId;
  std::string activation;
  float min = -std::numeric_limits<float>::infinity();
  float max = std::numeric_limits<float>::infinity();
  ValueId end = kNoId;  // the value that the fused node produces
  bool empty() const { return residual == kNoId && activation.empty(); }
};

bool limits_of(const Graph& graph, const Node& node, Epilogue& e) {
  if (node.is("Relu")) {
    e.activation = "Relu";
    return true;
  }
  if (!node.is("Clip")) return false;
  for (const size_t i : {size_t{1}, size_t{2}}) {
    if (node.input(i) == kNoId) continue;
    const Tensor* bound = graph.constant(node.input(i));
    if (bound == nullptr || bound->elements() != 1) return false;
    const float value = bound->to_floats()[0];
    if (std::isnan(value)) return false;
    (i == 1 ? e.min : e.max) = value;
  }
  if (e.min > e.max) return false;
  e.activation = "Clip";
  return true;
}

/// The other operand of an Add of two equal shapes.
ValueId residual_of(const Graph& graph, const Node& add, ValueId sum_of) {
  const ValueId other = add.inputs[0] == sum_of ? add.inputs[1] : add.inputs[0];
  if (other == sum_of || graph.constant(other) != nullptr) return kNoId;
  const auto& a = graph.value(sum_of).shape;
  const auto& b = graph.value(other).shape;
  if (!a || !b || a->size() != b->size()) return kNoId;
  for (size_t i = 0; i < a->size(); ++i) {
    const bool named = !(*a)[i].known() && !(*a)[i].name.empty();
    if (!((*a)[i] == (*b)[i]) || (!(*a)[i].known() && !named)) return kNoId;
  }
  return other;
}

Epilogue select(const Graph& graph, const Node& node) {
  Epilogue e;
  e.end = node.outputs[0];
  NodeId next = graph.single_user(e.end);
  if (next != kNoId && node.op == "Conv" && graph.node(next).is("Add")) {
    e.residual = residual_of(graph, graph.node(next), e.end);
    if (e.residual != kNoId) {
      e.end = graph.node(next).outputs[0];
      next = graph.single_user(e.end);
    }
  }
  if (next != kNoId && graph.node(next).inputs[0] == e.end &&
      limits_of(graph, graph.node(next), e)) {
    e.end = graph.node(next).outputs[0];
  }
  return e;
}

void fuse(Graph& graph, NodeId id, const Epilogue& e) {
  const Node& node = graph.node(id);
  std::vector<ValueId> inputs = node.inputs;
  if (e.residual != kNoId) {
    inputs.resize(3, kNoId);
    inputs.push_back(e.residual);
  }
  Attributes attributes = node.attributes;
  if (!e.activation.empty()) attributes["activation"] = e.activation;
  if (e.activation == "Clip") {
    if (std::isfinite(e.min)) attributes["min"] = e.min;
    if (std::isfinite(e.max)) attributes["max"] = e.max;
  }
  const std::string op = node.op == "Conv" ? "FusedConv" : "FusedGemm";
  const NodeId fused = graph.add_node(op, std::move(inputs), {graph.value(e.end).name + "_fused"},
                                      std::move(attributes), ops::kDomain, node.name + "_fused");
  const ValueId out = graph.node(fused).outputs[0];
  graph.mutable_value(out).dtype = graph.value(e.end).dtype;
  graph.mutable_value(out).shape = graph.value(e.end).shape;
  graph.replace_uses(e.end, out);
}

}  // namespace

int64_t fuse_activations(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  graph.sort();
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!node.is("Conv") && !node.is("Gemm")) continue;
    const Value& y = graph.value(node.outputs[0]);
    if (y.uses.empty() && !y.is_output) continue;
    if (y.dtype != DType::float32) continue;
    const Epilogue e = select(graph, node);
    if (e.empty()) continue;
    fuse(graph, id, e);
    ++changes;
  }
  graph.sort();
  graph.remove_dead();
  return changes;
}

}  // namespace narrow
