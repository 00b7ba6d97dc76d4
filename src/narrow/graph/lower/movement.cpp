// SPDX-License-Identifier: Apache-2.0
// Operators that only move or select values, and average pools.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "narrow/graph/lower/patterns.h"
#include "narrow/graph/lowered_ops.h"

namespace narrow::lower {
namespace {

/// Average over all spatial axes: GlobalAveragePool, or ReduceMean over axes 2.. of a known rank.
bool is_global_mean(const Graph& graph, const Node& node) {
  if (node.is("GlobalAveragePool")) return true;
  if (!node.is("ReduceMean")) return false;
  const auto& shape = graph.value(node.inputs[0]).shape;
  const Tensor* axes = graph.constant(node.input(1));
  if (!shape || shape->size() < 3 || axes == nullptr) return false;
  std::vector<int64_t> wanted = axes->to_ints();
  for (int64_t& axis : wanted) axis = normalize_axis(axis, shape->size());
  std::sort(wanted.begin(), wanted.end());
  if (wanted.size() != shape->size() - 2) return false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] != static_cast<int64_t>(i) + 2) return false;
  }
  return true;
}

/// The inputs of the operator on codes: the dequantized ones replaced by their codes.
std::vector<ValueId> code_inputs(Graph& graph, const Node& node, const QdqGrid& x) {
  std::vector<ValueId> inputs = node.inputs;
  for (ValueId& input : inputs) {
    if (const auto grid = input == kNoId ? std::nullopt : activation_grid(graph, input)) {
      input = grid->codes;
    }
  }
  if (node.is("Pad") && node.string_or("mode", "constant") == "constant") {
    inputs.resize(std::max<size_t>(inputs.size(), 3), kNoId);
    const Tensor fill =
        Tensor::from_ints(std::array{scalar_zero_point(graph, x)}, x.code_dtype, {});
    inputs[2] = graph.add_initializer(graph.unique_name(node.name + "_fill"), fill);
  }
  return inputs;
}

}  // namespace

bool is_movement(const Node& node) {
  constexpr const char* kMovement[] = {"MaxPool",   "Reshape",  "Flatten",      "Transpose",
                                       "Slice",     "Split",    "Gather",       "Squeeze",
                                       "Unsqueeze", "Pad",      "Resize",       "Expand",
                                       "Tile",      "Identity", "DepthToSpace", "SpaceToDepth"};
  return node.domain.empty() && std::any_of(std::begin(kMovement), std::end(kMovement),
                                            [&](const char* name) { return node.op == name; });
}

std::string movement_refusal(const Graph& graph, const Node& node) {
  if (node.is("Resize") && node.string_or("mode", "nearest") != "nearest") {
    return "it interpolates";
  }
  if (node.is("MaxPool") && node.output(1) != kNoId) return "its indices are used";
  if (node.is("Pad") && node.string_or("mode", "constant") == "constant") {
    const Tensor* fill = graph.constant(node.input(2));
    if (node.input(2) != kNoId && (fill == nullptr || fill->to_floats()[0] != 0.0f)) {
      return "it pads with a value other than 0";
    }
  }
  return {};
}

Outcome lower_movement(Graph& graph, NodeId id, const LoweringOptions&) {
  const Node node = graph.node(id);  // a copy: the graph grows below
  const auto x = activation_grid(graph, node.input(0));
  if (!x) return Outcome::none();
  if (node.is("Concat")) {
    for (const ValueId input : node.inputs) {
      const auto other = activation_grid(graph, input);
      if (!other || !same_grid(graph, *x, *other)) {
        return Outcome::refuse("its inputs lie on different grids and its result is not quantized");
      }
    }
  }
  const std::string refused = movement_refusal(graph, node);
  if (!refused.empty()) return Outcome::refuse(refused);

  std::vector<std::string> names;
  for (const ValueId output : node.outputs) {
    names.push_back(output == kNoId ? "" : graph.value(output).name + "_codes");
  }
  const NodeId moved = graph.add_node(node.op, code_inputs(graph, node, *x), names, node.attributes,
                                      node.domain, node.name + "_integer");
  // The result is dequantized again; a QuantizeLinear behind it then meets a DequantizeLinear.
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNoId) continue;
    const ValueId codes = graph.node(moved).outputs[i];
    annotate(graph, codes, x->code_dtype, node.outputs[i]);
    std::vector<ValueId> inputs = {codes, x->scale};
    if (x->zero_point != kNoId) inputs.push_back(x->zero_point);
    const NodeId dq = graph.add_node("DequantizeLinear", std::move(inputs),
                                     {graph.value(node.outputs[i]).name + "_real"});
    annotate(graph, graph.node(dq).outputs[0], DType::float32, node.outputs[i]);
    graph.replace_uses(node.outputs[i], graph.node(dq).outputs[0]);
  }
  return Outcome::done();
}

Outcome lower_pool(Graph& graph, NodeId id, const LoweringOptions&) {
  const Node& node = graph.node(id);
  const auto x = activation_grid(graph, node.input(0));
  if (!x) return Outcome::none();
  const bool global = is_global_mean(graph, node);
  if (!global && !node.is("AveragePool")) return Outcome::none();
  const Tail tail = tail_of(graph, node.outputs[0]);
  if (tail.quantize == kNoId) return Outcome::refuse("its result is not quantized");
  Attributes attributes = node.attributes;
  attributes.erase("noop_with_empty_axes");
  emit(graph, tail, global ? ops::kQGlobalAveragePool : ops::kQAveragePool,
       {x->codes, x->scale, x->zero_point}, 3, std::move(attributes), node.name);
  return Outcome::done();
}

}  // namespace narrow::lower
