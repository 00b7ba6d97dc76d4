// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "narrow/graph/known_value.h"
#include "narrow/graph/passes/passes.h"
#include "narrow/graph/passes/rewrite.h"

namespace narrow {
namespace {

bool equal(const Attribute& a, const Attribute& b) {
  if (a.index() != b.index()) return false;
  if (const Tensor* t = std::get_if<Tensor>(&a)) return identical(*t, std::get<Tensor>(b));
  return std::visit(
      [&b](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, Tensor>) {
          return false;  // compared above
        } else {
          return x == std::get<T>(b);  // bodies are equal only if they are the same object
        }
      },
      a);
}

bool same_attributes(const Node& a, const Node& b) {
  return std::equal(
      a.attributes.begin(), a.attributes.end(), b.attributes.begin(), b.attributes.end(),
      [](const auto& x, const auto& y) { return x.first == y.first && equal(x.second, y.second); });
}

/// The grids of a graph stay as they were written, each where its value is used.
bool mergeable(const Node& node) {
  return !node.is("QuantizeLinear") && !node.is("DequantizeLinear") && !node.outputs.empty();
}

/// Both nodes have the same outputs, and those of `later` can be given up.
bool outputs_can_merge(const Graph& graph, const Node& first, const Node& later) {
  if (first.outputs.size() != later.outputs.size()) return false;
  for (size_t i = 0; i < first.outputs.size(); ++i) {
    if ((first.outputs[i] == kNoId) != (later.outputs[i] == kNoId)) return false;
    if (later.outputs[i] == kNoId) continue;
    if (graph.value(later.outputs[i]).is_output && graph.value(first.outputs[i]).is_output) {
      return false;
    }
  }
  return true;
}

/// Shapes, axes and indices that stand in the graph twice; never codes or floats, whose grids are
/// kept by name.
void merge_index_constants(Graph& graph) {
  std::map<std::pair<Dims, std::vector<int64_t>>, ValueId> seen;
  for (const ValueId id : graph.live_values()) {
    const Value& v = graph.value(id);
    if (!v.is_constant() || v.dtype != DType::int64 || v.is_output ||
        v.constant.elements() > KnownValue::kMaxElements) {
      continue;
    }
    const auto [it, added] = seen.emplace(std::pair(v.constant.dims(), v.constant.to_ints()), id);
    if (!added) graph.replace_uses(id, it->second);
  }
}

}  // namespace

int64_t eliminate_common(Graph& graph, const PassContext&) {
  merge_index_constants(graph);
  using Key = std::tuple<std::string, std::string, std::vector<ValueId>>;
  std::map<Key, std::vector<NodeId>> seen;
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!mergeable(node)) continue;
    auto& others = seen[{node.domain, node.op, node.inputs}];
    const auto first = std::find_if(others.begin(), others.end(), [&](NodeId other) {
      return same_attributes(graph.node(other), node) &&
             outputs_can_merge(graph, graph.node(other), node);
    });
    if (first == others.end()) {
      others.push_back(id);
      continue;
    }
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i] == kNoId) continue;
      graph.replace_uses(node.outputs[i], graph.node(*first).outputs[i]);
    }
    graph.remove_node(id);
    ++changes;
  }
  return changes;
}

}  // namespace narrow
