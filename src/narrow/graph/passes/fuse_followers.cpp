// SPDX-License-Identifier: Apache-2.0
// Quantized convolutions and what follows them, residual sums and tables, as one node: the codes of
// a block go through while a cache has them, on the thread that made them.
#include <algorithm>
#include <map>

#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/passes/passes.h"
#include "narrow/graph/passes/rewrite.h"

namespace narrow {
namespace {

// Inputs of QConv and of QBinary.
constexpr size_t kConvInputs = 9;
constexpr size_t kConvScale = 6;
constexpr size_t kA = 0;
constexpr size_t kB = 3;
constexpr size_t kSumScale = 6;
// Of an image. Larger sums are streams that go by faster alone: fused, ResNet-50 (100,000 codes and
// more) is 1 to 2 % slower, ResNet-20 (4,096 to 16,384) on two threads of an AMD EPYC 9005 6 %
// faster.
constexpr int64_t kMostCodes = 65536;

bool is_small(const SymbolicShape& shape) {
  int64_t codes = 1;
  for (size_t i = 1; i < shape.size(); ++i) {
    if (!shape[i].known()) return false;
    codes *= std::min(shape[i].value, kMostCodes + 1);
    if (codes > kMostCodes) return false;
  }
  return true;
}

/// The convolution whose codes only input `own` of the node reads, which makes others of their
/// type.
const Node* convolution(const Graph& graph, const Node& node, size_t own) {
  const Node* conv = graph.producer(node.inputs[own]);
  if (conv == nullptr || !conv->is(ops::kQConv, ops::kDomain)) return nullptr;
  if (conv->int_or("group", 1) != 1 || conv->input(kConvScale) == kNoId) return nullptr;
  const Value& v = graph.value(node.inputs[own]);
  const Value& y = graph.value(node.outputs[0]);
  if (v.is_output || v.uses.size() != 1 || y.is_output) return nullptr;
  return v.dtype == y.dtype ? conv : nullptr;
}

/// The convolution of operand `own` of a sum.
const Node* summed(const Graph& graph, const Node& sum, size_t own) {
  const Node* conv = convolution(graph, sum, own);
  if (conv == nullptr) return nullptr;
  const Value& v = graph.value(sum.inputs[own]);
  const Value& y = graph.value(sum.outputs[0]);
  const Value& addend = graph.value(sum.inputs[own == kA ? kB : kA]);
  if (addend.is_constant()) return nullptr;
  if (!same_known_shape(v, addend) || !same_known_shape(v, y)) return nullptr;
  return is_small(*y.shape) ? conv : nullptr;
}

/// A node in the place of a convolution and of `follower`, whose only output it makes.
void replace(Graph& graph, const Node& follower, const char* op, std::vector<ValueId> inputs,
             Attributes attributes, const std::string& name) {
  const ValueId y = follower.outputs[0];
  const NodeId node =
      graph.add_node(op, std::move(inputs), {graph.unique_name(graph.value(y).name + "_followed")},
                     std::move(attributes), ops::kDomain, name);
  take_place(graph, y, graph.node(node).outputs[0]);
}

std::vector<ValueId> conv_inputs(const Node& conv) {
  std::vector<ValueId> inputs = conv.inputs;
  inputs.resize(kConvInputs, kNoId);
  return inputs;
}

bool fuse_sum(Graph& graph, NodeId id, std::map<ValueId, size_t>& made_at) {
  const Node sum = graph.node(id);  // copies: the graph changes below
  const Node* a = summed(graph, sum, kA);
  const Node* b = summed(graph, sum, kB);
  if (a == nullptr && b == nullptr) return false;
  // Of two the later: the other one's codes are there by then.
  const bool first =
      b == nullptr || (a != nullptr && made_at[a->outputs[0]] > made_at[b->outputs[0]]);
  const Node conv = first ? *a : *b;
  const size_t own = first ? kA : kB;
  const size_t other = first ? kB : kA;
  std::vector<ValueId> inputs = conv_inputs(conv);
  for (const size_t i : {other, other + 1, other + 2, own + 1, own + 2, kSumScale, kSumScale + 1}) {
    inputs.push_back(sum.input(i));
  }
  Attributes attributes = conv.attributes;
  for (const char* limit : {"qmin", "qmax"}) {
    if (const auto it = sum.attributes.find(limit); it != sum.attributes.end()) {
      attributes[std::string("sum_") + limit] = it->second;
    }
  }
  replace(graph, sum, ops::kQConvAdd, std::move(inputs), std::move(attributes), conv.name);
  return true;
}

bool fuse_table(Graph& graph, NodeId id) {
  const Node lookup = graph.node(id);
  const Node* found = convolution(graph, lookup, 0);
  if (found == nullptr || graph.constant(lookup.inputs[1]) == nullptr) return false;
  const Node conv = *found;
  std::vector<ValueId> inputs = conv_inputs(conv);
  inputs.push_back(lookup.inputs[1]);
  replace(graph, lookup, ops::kQConvLookup, std::move(inputs), conv.attributes, conv.name);
  return true;
}

}  // namespace

int64_t fuse_followers(Graph& graph, const PassContext&) {
  graph.sort();
  const std::vector<NodeId> nodes = graph.nodes();
  std::map<ValueId, size_t> made_at;
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (const ValueId id : graph.node(nodes[i]).outputs) made_at[id] = i;
  }
  int64_t changes = 0;
  for (const NodeId id : nodes) {
    const Node& node = graph.node(id);
    const bool sum = node.is(ops::kQBinary, ops::kDomain) && node.string_or("op", "") == "Add";
    const bool table = node.is(ops::kQLookup, ops::kDomain);
    if ((sum && fuse_sum(graph, id, made_at)) || (table && fuse_table(graph, id))) ++changes;
  }
  if (changes > 0) {
    graph.remove_dead();
    graph.sort();
  }
  return changes;
}

}  // namespace narrow
