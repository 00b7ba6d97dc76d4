// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "narrow/graph/passes/passes.h"
#include "narrow/graph/passes/rewrite.h"

namespace narrow {
namespace {

/// The pads of every axis, begins then ends, also where the node names only some axes.
std::vector<int64_t> all_pads(const Graph& graph, const Node& pad) {
  const auto amounts = constant_ints(graph, pad, 1);
  if (!amounts) return {};
  if (pad.input(3) == kNoId) return *amounts;
  const auto axes = constant_ints(graph, pad, 3);
  const auto& shape = graph.value(pad.inputs[0]).shape;
  if (!axes || !shape || amounts->size() != 2 * axes->size()) return {};
  std::vector<int64_t> all(2 * shape->size(), 0);
  for (size_t i = 0; i < axes->size(); ++i) {
    const auto axis = static_cast<size_t>(normalize_axis((*axes)[i], shape->size()));
    all[axis] = (*amounts)[i];
    all[axis + shape->size()] = (*amounts)[i + axes->size()];
  }
  return all;
}

/// The pads of a constant zero Pad over the spatial axes only: begins then ends, as Conv has them.
std::vector<int64_t> spatial_zero_pads(const Graph& graph, const Node& pad) {
  if (pad.string_or("mode", "constant") != "constant") return {};
  if (pad.input(2) != kNoId) {
    const Tensor* fill = graph.constant(pad.input(2));
    if (fill == nullptr || fill->elements() != 1 || fill->to_floats()[0] != 0.0f) return {};
  }
  const std::vector<int64_t> all = all_pads(graph, pad);
  const size_t rank = all.size() / 2;
  if (rank < 3 || all[0] != 0 || all[1] != 0 || all[rank] != 0 || all[rank + 1] != 0) return {};
  if (std::any_of(all.begin(), all.end(), [](int64_t v) { return v < 0; })) return {};
  std::vector<int64_t> pads(all.begin() + 2, all.begin() + static_cast<std::ptrdiff_t>(rank));
  pads.insert(pads.end(), all.begin() + static_cast<std::ptrdiff_t>(rank) + 2, all.end());
  return pads;
}

bool accepts_pads(const Node& node, size_t count) {
  if (node.string_or("auto_pad", "NOTSET") != "NOTSET") return false;
  if (node.ints_or("pads", std::vector<int64_t>(count, 0)).size() != count) return false;
  if (node.is("Conv")) return true;
  // An average over padding counts it only with count_include_pad, and ceil_mode bends the border.
  const std::vector<int64_t> own = node.ints_or("pads", std::vector<int64_t>(count, 0));
  const bool none = std::all_of(own.begin(), own.end(), [](int64_t v) { return v == 0; });
  return node.is("AveragePool") && node.int_or("ceil_mode", 0) == 0 &&
         (none || node.int_or("count_include_pad", 0) != 0);
}

}  // namespace

int64_t fuse_pads(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!node.domain.empty() || node.inputs.empty()) continue;
    const Node* pad = graph.producer(node.inputs[0]);
    if (pad == nullptr || !pad->is("Pad")) continue;
    const std::vector<int64_t> extra = spatial_zero_pads(graph, *pad);
    if (extra.empty() || !accepts_pads(node, extra.size())) continue;
    std::vector<int64_t> pads = node.ints_or("pads", std::vector<int64_t>(extra.size(), 0));
    for (size_t i = 0; i < pads.size(); ++i) pads[i] += extra[i];
    const ValueId source = pad->inputs[0];
    Attributes& attributes = graph.attributes(id);
    attributes["pads"] = pads;
    if (graph.node(id).is("AveragePool")) attributes["count_include_pad"] = int64_t{1};
    graph.set_input(id, 0, source);
    ++changes;
  }
  if (changes > 0) graph.remove_dead();
  return changes;
}

}  // namespace narrow
