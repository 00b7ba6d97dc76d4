// SPDX-License-Identifier: Apache-2.0
// Keys and values kept narrower than attention computes, which narrow.Attention reads as they are:
//   Attention (q, Cast(float16 k), Cast(float16 v), ...)                            =>  (q, k, v,
//   ...) Attention (q, DequantizeLinear(int8 k, s), DequantizeLinear(int8 v, t), ...)
//                                                                         =>  (q, k, v, ..., s, t)
#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

/// Keys or values behind the node that widens them; codes have scales.
struct Narrow {
  ValueId value = kNoId;
  ValueId scales = kNoId;
  int64_t block = 0;
};

size_t rank_of(const Graph& graph, ValueId value) {
  const auto& shape = graph.value(value).shape;
  return shape ? shape->size() : 0;
}

Narrow cast_from_half(const Graph& graph, const Node& cast) {
  if (graph.value(cast.inputs[0]).dtype != DType::float16) return {};
  return {cast.inputs[0], kNoId, 0};
}

/// int8 in blocks along the numbers of a head, without zero_points.
Narrow dequantized(const Graph& graph, const Node& node) {
  const ValueId codes = node.inputs[0];
  const ValueId scales = node.inputs[1];
  const int64_t axis = node.int_or("axis", 1);
  const int64_t block = node.int_or("block_size", 0);
  if (graph.value(codes).dtype != DType::int8 || node.input(2) != kNoId || block < 1) return {};
  if (graph.value(scales).dtype != DType::float32 || rank_of(graph, scales) != 4) return {};
  if (rank_of(graph, codes) != 4 || (axis != -1 && axis != 3)) return {};
  return {codes, scales, block};
}

Narrow narrow_source(const Graph& graph, ValueId value) {
  const Node* node = graph.producer(value);
  if (node == nullptr) return {};
  if (node->is("Cast")) return cast_from_half(graph, *node);
  return node->is("DequantizeLinear") ? dequantized(graph, *node) : Narrow{};
}

bool absorb(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (!node.is("Attention") || graph.value(node.inputs[0]).dtype != DType::float32) return false;
  if (node.input(4) != kNoId || node.output(1) != kNoId || node.output(2) != kNoId) return false;
  const Narrow k = narrow_source(graph, node.inputs[1]);
  const Narrow v = narrow_source(graph, node.inputs[2]);
  const bool alike = (k.scales == kNoId) == (v.scales == kNoId) && k.block == v.block;
  if (k.value == kNoId || v.value == kNoId || !alike) return false;
  graph.set_op(id, ops::kAttention, ops::kDomain);
  graph.set_input(id, 1, k.value);
  graph.set_input(id, 2, v.value);
  if (k.scales != kNoId) {
    graph.set_input(id, 7, k.scales);
    graph.set_input(id, 8, v.scales);
    graph.attributes(id)["block_size"] = k.block;
  }
  return true;
}

}  // namespace

int64_t absorb_cache(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    if (absorb(graph, id)) ++changes;
  }
  if (changes > 0) {
    graph.sort();
    graph.remove_dead();
  }
  return changes;
}

}  // namespace narrow
