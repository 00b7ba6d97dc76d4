// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "narrow/graph/op_table.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

bool foldable(const Graph& graph, const Node& node) {
  if (node.is("DequantizeLinear") || node.domain == "narrow") return false;
  if (node.op.starts_with("Random") || node.is("Bernoulli") || node.is("Multinomial")) return false;
  for (const auto& [key, attribute] : node.attributes) {
    if (std::holds_alternative<std::shared_ptr<Graph>>(attribute)) return false;
  }
  const auto is_constant = [&](ValueId v) { return v == kNoId || graph.value(v).is_constant(); };
  return std::all_of(node.inputs.begin(), node.inputs.end(), is_constant);
}

/// Too large by the inferred shapes; what inference does not know is checked after the run.
bool too_large(const Graph& graph, const Node& node, int64_t limit) {
  for (const ValueId output : node.outputs) {
    if (output == kNoId || !graph.value(output).shape) continue;
    const auto dims = concrete(*graph.value(output).shape);
    if (dims && num_elements(*dims) > limit / 8) return true;
  }
  return false;
}

bool fold(Graph& graph, NodeId id, const PassContext& context) {
  const Node& node = graph.node(id);
  std::vector<Tensor> inputs;
  for (const ValueId input : node.inputs) {
    inputs.push_back(input == kNoId ? Tensor() : graph.value(input).constant);
  }
  const std::vector<Tensor> results = context.evaluate(graph, node, inputs);
  const std::vector<ValueId> outputs = node.outputs;
  if (results.size() < outputs.size()) return false;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i] != kNoId && !results[i].defined()) return false;
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i] != kNoId) graph.set_constant(outputs[i], results[i]);
  }
  graph.remove_node(id);
  return true;
}

/// Values that shape inference computed (Shape of a known shape, and arithmetic on it).
int64_t fold_known_values(Graph& graph) {
  const std::vector<Tensor> known = infer_shapes(graph);
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.outputs.size() != 1 || node.outputs[0] == kNoId) continue;
    const auto v = static_cast<size_t>(node.outputs[0]);
    if (v >= known.size() || !known[v].defined()) continue;
    graph.set_constant(node.outputs[0], known[v]);
    graph.remove_node(id);
    ++changes;
  }
  return changes;
}

}  // namespace

int64_t fold_constants(Graph& graph, const PassContext& context) {
  int64_t changes = fold_known_values(graph);
  if (!context.evaluate) return changes;
  graph.sort();
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!foldable(graph, node) || too_large(graph, node, context.max_folded_bytes)) continue;
    if (fold(graph, id, context)) ++changes;
  }
  if (changes > 0) graph.remove_dead();
  return changes;
}

}  // namespace narrow
