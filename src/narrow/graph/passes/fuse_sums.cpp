// SPDX-License-Identifier: Apache-2.0
// Sums of quantized convolutions and what they are added to (the residuals of ResNets), as one
// node: the sum is made while a block of the convolution is in a cache, on the thread that has it.
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

/// The convolution of operand `own` of a sum, where nothing else reads it.
const Node* convolution(const Graph& graph, const Node& sum, size_t own) {
  const size_t other = own == kA ? kB : kA;
  const Node* conv = graph.producer(sum.inputs[own]);
  if (conv == nullptr || !conv->is(ops::kQConv, ops::kDomain)) return nullptr;
  if (conv->int_or("group", 1) != 1 || conv->input(kConvScale) == kNoId) return nullptr;
  const Value& v = graph.value(sum.inputs[own]);
  const Value& y = graph.value(sum.outputs[0]);
  if (v.is_output || v.uses.size() != 1 || y.is_output) return nullptr;
  const Value& addend = graph.value(sum.inputs[other]);
  if (addend.is_constant() || v.dtype != y.dtype) return nullptr;
  if (!same_known_shape(v, addend) || !same_known_shape(v, y)) return nullptr;
  return is_small(*y.shape) ? conv : nullptr;
}

void fuse(Graph& graph, NodeId sum_id, const Node& convolution, size_t own) {
  const Node conv = convolution;  // copies: the graph changes below
  const Node sum = graph.node(sum_id);
  const size_t other = own == kA ? kB : kA;
  std::vector<ValueId> inputs = conv.inputs;
  inputs.resize(kConvInputs, kNoId);
  for (const size_t i : {other, other + 1, other + 2, own + 1, own + 2, kSumScale, kSumScale + 1}) {
    inputs.push_back(sum.input(i));
  }
  Attributes attributes = conv.attributes;
  for (const char* limit : {"qmin", "qmax"}) {
    if (const auto it = sum.attributes.find(limit); it != sum.attributes.end()) {
      attributes[std::string("sum_") + limit] = it->second;
    }
  }
  const ValueId y = sum.outputs[0];
  const NodeId node = graph.add_node(ops::kQConvAdd, std::move(inputs),
                                     {graph.unique_name(graph.value(y).name + "_sum")},
                                     std::move(attributes), ops::kDomain, conv.name);
  const ValueId out = graph.node(node).outputs[0];
  graph.mutable_value(out).dtype = graph.value(y).dtype;
  graph.mutable_value(out).shape = graph.value(y).shape;
  graph.replace_uses(y, out);
}

}  // namespace

int64_t fuse_sums(Graph& graph, const PassContext&) {
  graph.sort();
  const std::vector<NodeId> nodes = graph.nodes();
  std::map<ValueId, size_t> made_at;
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (const ValueId id : graph.node(nodes[i]).outputs) made_at[id] = i;
  }
  int64_t changes = 0;
  for (const NodeId id : nodes) {
    const Node& sum = graph.node(id);
    if (!sum.is(ops::kQBinary, ops::kDomain) || sum.string_or("op", "") != "Add") continue;
    const Node* a = convolution(graph, sum, kA);
    const Node* b = convolution(graph, sum, kB);
    if (a == nullptr && b == nullptr) continue;
    // Of two the later: the other one's codes are there by then.
    const bool first =
        b == nullptr || (a != nullptr && made_at[a->outputs[0]] > made_at[b->outputs[0]]);
    fuse(graph, id, first ? *a : *b, first ? kA : kB);
    ++changes;
  }
  if (changes > 0) {
    graph.remove_dead();
    graph.sort();
  }
  return changes;
}

}  // namespace narrow
