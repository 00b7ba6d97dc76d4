// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/passes/rewrite.h"

#include <algorithm>

namespace narrow {

bool replace_value(Graph& graph, ValueId from, ValueId to) {
  if (graph.value(from).is_output) {
    const Value& v = graph.value(to);
    if (v.is_input || v.is_output || v.is_constant()) return false;
  }
  graph.replace_uses(from, to);
  return true;
}

void take_place(Graph& graph, ValueId from, ValueId to) {
  graph.mutable_value(to).dtype = graph.value(from).dtype;
  graph.mutable_value(to).shape = graph.value(from).shape;
  graph.replace_uses(from, to);
}

void remove_if_unused(Graph& graph, NodeId id) {
  for (const ValueId output : graph.node(id).outputs) {
    if (output == kNoId) continue;
    const Value& v = graph.value(output);
    if (!v.uses.empty() || v.is_output) return;
  }
  graph.remove_node(id);
}

bool only_first_output_used(const Graph& graph, const Node& node) {
  for (size_t i = 1; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNoId) continue;
    const Value& v = graph.value(node.outputs[i]);
    if (!v.uses.empty() || v.is_output) return false;
  }
  return true;
}

bool same_known_shape(const Value& a, const Value& b) {
  if (!a.shape || !b.shape || *a.shape != *b.shape) return false;
  return std::none_of(a.shape->begin(), a.shape->end(),
                      [](const Dim& d) { return !d.known() && d.name.empty(); });
}

std::optional<std::vector<int64_t>> constant_ints(const Graph& graph, const Node& node,
                                                  size_t index) {
  const Tensor* t = graph.constant(node.input(index));
  if (t == nullptr || !is_integer(t->dtype())) return std::nullopt;
  return t->to_ints();
}

bool is_filled_with(const Graph& graph, ValueId input, float value) {
  const Tensor* t = graph.constant(input);
  if (t == nullptr || t->dtype() == DType::string) return false;
  const std::vector<float> values = t->to_floats();
  return std::all_of(values.begin(), values.end(), [value](float v) { return v == value; });
}

bool all_ints(const Node& node, std::string_view attribute, int64_t value) {
  const std::vector<int64_t> ints = node.ints_or(attribute, {});
  return std::all_of(ints.begin(), ints.end(), [value](int64_t v) { return v == value; });
}

}  // namespace narrow
