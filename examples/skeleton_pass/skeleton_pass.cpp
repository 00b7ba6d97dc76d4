// SPDX-License-Identifier: Apache-2.0
#include "skeleton_pass.h"

#include <algorithm>
#include <optional>

namespace narrow {
namespace {

/// What the selector found and the action needs.
struct Match {
  NodeId relu = kNoId;
  float min = 0;  // of the merged Clip
};

/// Looks only: nothing is changed here, so that a pattern that does not match leaves no trace.
std::optional<Match> select(const Graph& graph, const Node& clip) {
  if (!clip.is("Clip")) return std::nullopt;
  if (graph.value(clip.inputs[0]).dtype != DType::float32) return std::nullopt;
  const NodeId relu = graph.producer_id(clip.inputs[0]);
  if (relu == kNoId || !graph.node(relu).is("Relu")) return std::nullopt;
  Match match{relu, 0};
  if (clip.input(1) != kNoId) {
    const Tensor* min = graph.constant(clip.input(1));
    if (min == nullptr || min->elements() != 1) return std::nullopt;
    match.min = std::max(match.min, min->to_floats()[0]);
  }
  return match;
}

/// Changes only: every edit goes through the graph's functions, which keep uses and names right.
void apply(Graph& graph, NodeId clip, const Match& match) {
  const std::string name = graph.unique_name(graph.node(clip).name + "_min");
  graph.set_input(clip, 1, graph.add_initializer(name, Tensor::scalar(match.min)));
  const ValueId before = graph.node(match.relu).outputs[0];
  graph.set_input(clip, 0, graph.node(match.relu).inputs[0]);
  const Value& v = graph.value(before);
  if (v.uses.empty() && !v.is_output) graph.remove_node(match.relu);
}

}  // namespace

int64_t merge_relu_into_clip(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  // nodes() is a copy of the order: removing nodes on the way is safe, ids stay valid. A node
  // removed here stands before the one that is looked at.
  for (const NodeId id : graph.nodes()) {
    if (!graph.alive(id)) continue;
    if (const auto match = select(graph, graph.node(id))) {
      apply(graph, id, *match);
      ++changes;
    }
  }
  return changes;
}

}  // namespace narrow
