// SPDX-License-Identifier: Apache-2.0
// Activations in fewer than 8 bits become 8-bit codes of the same grid, with a Clip to the narrow
// range in front: the integer operators take bytes, and absorb the Clip.
#include "narrow/graph/lower/patterns.h"

namespace narrow::lower {
namespace {

bool is_narrow(DType dtype) {
  return dtype == DType::int4 || dtype == DType::uint4 || dtype == DType::int2 ||
         dtype == DType::uint2;
}

bool same_numbers(const Graph& graph, const QdqGrid& a, const QdqGrid& b) {
  return scalar_scale(graph, a) == scalar_scale(graph, b) &&
         scalar_zero_point(graph, a) == scalar_zero_point(graph, b);
}

/// Values that stand on the grid already: moved from behind a DequantizeLinear of it.
bool on_grid(const Graph& graph, ValueId value, const QdqGrid& grid) {
  for (const Node* node = graph.producer(value); node != nullptr;
       node = graph.producer(node->inputs[0])) {
    if (node->is("DequantizeLinear")) {
      const auto from = dequantized_from(graph, node->outputs[0]);
      return from && from->per_tensor && same_numbers(graph, *from, grid);
    }
    if (!is_movement(*node) || !movement_refusal(graph, *node).empty()) return false;
  }
  return false;
}

/// x within the real bounds of the codes of `narrow`.
ValueId clipped(Graph& graph, ValueId x, const QdqGrid& grid, DType narrow) {
  const float scale = scalar_scale(graph, grid);
  const int64_t zero = scalar_zero_point(graph, grid);
  const std::string name = graph.value(x).name;
  const auto bound = [&](const char* which, int64_t code) {
    return graph.add_initializer(graph.unique_name(name + which),
                                 Tensor::scalar(scale * static_cast<float>(code - zero)));
  };
  const NodeId clip = graph.add_node(
      "Clip",
      {x, bound("_narrow_min", integer_min(narrow)), bound("_narrow_max", integer_max(narrow))},
      {name + "_narrow"});
  const ValueId y = graph.node(clip).outputs[0];
  annotate(graph, y, DType::float32, x);
  return y;
}

/// The pairs behind the codes; empty where something else reads them.
std::vector<NodeId> readers(const Graph& graph, ValueId codes, const QdqGrid& grid) {
  std::vector<NodeId> nodes;
  if (graph.value(codes).is_output) return {};
  for (const Use& use : graph.value(codes).uses) {
    const Node& node = graph.node(use.node);
    if (!node.is("DequantizeLinear") || use.index != 0) return {};
    const auto back = dequantized_from(graph, node.outputs[0]);
    if (!back || !back->per_tensor || !same_numbers(graph, *back, grid)) return {};
    nodes.push_back(use.node);
  }
  return nodes;
}

void set_zero_point(Graph& graph, NodeId node, ValueId zero_point) {
  if (graph.node(node).inputs.size() > 2) {
    graph.set_input(node, 2, zero_point);
  } else {
    graph.add_node_input(node, zero_point);
  }
}

bool widen(Graph& graph, NodeId id) {
  const auto grid = quantizes_to(graph, id);
  if (!grid || !grid->per_tensor || !is_narrow(grid->code_dtype)) return false;
  if (graph.value(grid->real).dtype != DType::float32) return false;
  const std::vector<NodeId> pairs = readers(graph, grid->codes, *grid);
  if (pairs.empty()) return false;
  const bool is_signed = integer_min(grid->code_dtype) < 0;
  const DType wide = is_signed ? DType::int8 : DType::uint8;
  if (!on_grid(graph, grid->real, *grid)) {
    graph.set_input(id, 0, clipped(graph, grid->real, *grid, grid->code_dtype));
  }
  const int64_t zero = scalar_zero_point(graph, *grid);
  const ValueId zero_point =
      graph.add_initializer(graph.unique_name(graph.value(grid->codes).name + "_zero_point"),
                            Tensor::from_ints({&zero, 1}, wide, {}));
  graph.attributes(id).erase("output_dtype");
  set_zero_point(graph, id, zero_point);
  for (const NodeId pair : pairs) set_zero_point(graph, pair, zero_point);
  graph.mutable_value(grid->codes).dtype = wide;
  return true;
}

}  // namespace

int64_t widen_activations(Graph& graph) {
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    if (graph.node(id).is("QuantizeLinear") && widen(graph, id)) ++changes;
  }
  if (changes > 0) graph.sort();
  return changes;
}

}  // namespace narrow::lower
