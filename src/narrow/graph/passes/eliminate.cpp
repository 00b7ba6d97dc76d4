// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

bool all_equal(const Tensor* t, int64_t wanted) {
  if (t == nullptr) return false;
  const std::vector<int64_t> values = t->to_ints();
  return std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == wanted; });
}

bool same_known_shape(const Graph& graph, ValueId a, ValueId b) {
  const auto& x = graph.value(a).shape;
  const auto& y = graph.value(b).shape;
  if (!x || !y || x->size() != y->size()) return false;
  int unknown = 0;
  for (size_t i = 0; i < x->size(); ++i) {
    const Dim& d = (*x)[i];
    const bool same = d == (*y)[i] && (d.known() || !d.name.empty());
    if (!same) ++unknown;
  }
  return unknown == 0;
}

bool is_identity_permutation(const Node& node, const Graph& graph) {
  const auto& shape = graph.value(node.inputs[0]).shape;
  if (!shape) return false;
  std::vector<int64_t> order(shape->size());
  std::iota(order.rbegin(), order.rend(), int64_t{0});  // the default reverses
  const std::vector<int64_t> perm = node.ints_or("perm", order);
  std::iota(order.begin(), order.end(), int64_t{0});
  return perm == order;
}

/// Whether output 0 is input 0, unchanged.
bool is_identity(const Graph& graph, const Node& node) {
  const Value& x = graph.value(node.inputs[0]);
  const Value& y = graph.value(node.outputs[0]);
  if (node.is("Identity")) return true;
  if (node.is("Dropout")) {
    // The mask is not made, and inference is the default.
    const Tensor* training = graph.constant(node.input(2));
    const bool inference = node.input(2) == kNoId || all_equal(training, 0);
    return inference && (node.output(1) == kNoId || (graph.value(node.outputs[1]).uses.empty() &&
                                                     !graph.value(node.outputs[1]).is_output));
  }
  if (node.is("Cast")) return x.dtype != DType::undefined && x.dtype == y.dtype;
  if (node.is("Transpose")) return is_identity_permutation(node, graph);
  if (node.is("Reshape") || node.is("Expand") || node.is("Flatten") || node.is("Squeeze") ||
      node.is("Unsqueeze") || node.is("Slice")) {
    return same_known_shape(graph, node.inputs[0], node.outputs[0]) &&
           (!node.is("Slice") || all_equal(graph.constant(node.input(1)), 0)) &&
           (!node.is("Slice") || node.input(4) == kNoId ||
            all_equal(graph.constant(node.input(4)), 1));
  }
  if (node.is("Pad")) return all_equal(graph.constant(node.input(1)), 0);
  if (node.is("Concat") || node.is("Sum") || node.is("Max") || node.is("Min")) {
    return node.inputs.size() == 1;
  }
  return false;
}

}  // namespace

int64_t eliminate_identities(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!node.domain.empty() || node.inputs.empty() || node.inputs[0] == kNoId ||
        node.outputs.empty() || node.outputs[0] == kNoId || !is_identity(graph, node)) {
      continue;
    }
    const ValueId x = node.inputs[0];
    const ValueId y = node.outputs[0];
    // An output that is an input, a constant or another output needs a node that makes it.
    const Value& source = graph.value(x);
    if (graph.value(y).is_output && (source.is_input || source.is_constant() || source.is_output)) {
      continue;
    }
    graph.replace_uses(y, x);
    graph.remove_node(id);
    ++changes;
  }
  return changes;
}

int64_t eliminate_dead(Graph& graph, const PassContext&) {
  return graph.remove_dead();
}

}  // namespace narrow
