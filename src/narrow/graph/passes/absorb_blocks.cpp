// SPDX-License-Identifier: Apache-2.0
// Constant weights in blocks, which the operator behind their DecodeBlocks reads as they are:
//   MatMul (DequantizeLinear(DynamicQuantize(x)), Transpose(DecodeBlocks(w)))  =>  BlockGemm (x, w)
//   MatMul (x, Transpose(DecodeBlocks(w)))                                     =>  WBlockGemm (x,
//   w) Gather (DecodeBlocks(w), indices)                            =>  DecodeBlocks(Gather(w,
//   indices))
#include <map>

#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/passes/passes.h"
#include "narrow/quant/blocks/block_codec.h"

namespace narrow {
namespace {

const Node* decoder_of(const Graph& graph, ValueId value) {
  const Node* node = graph.producer(value);
  return node != nullptr && node->is(ops::kDecodeBlocks, ops::kDomain) ? node : nullptr;
}

/// The DecodeBlocks of a constant matrix whose transpose is multiplied from the right.
const Node* product_weights(const Graph& graph, const Node& node) {
  if (!node.is("MatMul") || graph.value(node.inputs[0]).dtype != DType::float32) return nullptr;
  const auto& x = graph.value(node.inputs[0]).shape;
  const Node* transpose = graph.producer(node.inputs[1]);
  if (!x || x->empty() || transpose == nullptr || !transpose->is("Transpose")) return nullptr;
  if (transpose->ints_or("perm", {1, 0}) != std::vector<int64_t>{1, 0}) return nullptr;
  const Node* decode = decoder_of(graph, transpose->inputs[0]);
  const Tensor* w = decode == nullptr ? nullptr : graph.constant(decode->inputs[0]);
  return w != nullptr && w->rank() == 2 && w->dtype() == DType::uint8 ? decode : nullptr;
}

bool has_codes(const Node& decode) {
  const BlockCodec* codec = find_codec(decode.string_or("type", ""));
  return codec != nullptr && codec->block_values % ops::kActivationBlock == 0;
}

/// What was quantized in blocks of 32 to make `value`; kNoId: it was not.
ValueId quantized_from(const Graph& graph, ValueId value) {
  const Node* dequantize = graph.producer(value);
  if (dequantize == nullptr || !dequantize->is("DequantizeLinear")) return kNoId;
  const Node* quantize = graph.producer(dequantize->inputs[0]);
  if (quantize == nullptr || !quantize->is(ops::kDynamicQuantize, ops::kDomain)) return kNoId;
  const auto& shape = graph.value(value).shape;
  const int64_t axis = dequantize->int_or("axis", 1);
  const bool last = axis == -1 || (shape && axis + 1 == static_cast<int64_t>(shape->size()));
  const auto block = [](const Node& n, int64_t fallback) {
    return n.int_or("block_size", fallback);
  };
  if (!last || dequantize->inputs[0] != quantize->outputs[0] ||
      dequantize->inputs[1] != quantize->outputs[1] || dequantize->input(2) != kNoId ||
      block(*quantize, ops::kActivationBlock) != ops::kActivationBlock ||
      block(*dequantize, 0) != ops::kActivationBlock) {
    return kNoId;
  }
  return quantize->inputs[0];
}

bool absorb_product(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const Node* decode = product_weights(graph, node);
  if (decode == nullptr) return false;
  const ValueId quantized = has_codes(*decode) ? quantized_from(graph, node.inputs[0]) : kNoId;
  const ValueId w = decode->inputs[0];
  const Attributes attributes = decode->attributes;
  graph.set_op(id, quantized != kNoId ? ops::kBlockGemm : ops::kWBlockGemm, ops::kDomain);
  if (quantized != kNoId) graph.set_input(id, 0, quantized);
  graph.set_input(id, 1, w);
  graph.attributes(id) = attributes;
  return true;
}

/// Rows are looked up as they are stored, and those alone decoded.
bool absorb_table(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (!node.is("Gather")) return false;
  const Node* decode = decoder_of(graph, node.inputs[0]);
  if (decode == nullptr || !graph.value(decode->inputs[0]).is_constant()) return false;
  const auto rank = static_cast<int64_t>(graph.value(decode->inputs[0]).constant.rank());
  const int64_t axis = node.int_or("axis", 0);
  if ((axis < 0 ? axis + rank : axis) >= rank - 1) return false;  // along the row
  const ValueId real = node.outputs[0];
  if (graph.value(real).is_output) return false;  // it would lose its name
  const std::vector<ValueId> inputs{decode->inputs[0], node.inputs[1]};
  const Attributes form = decode->attributes;
  const std::string name = graph.value(real).name;
  auto shape = graph.value(real).shape;
  const NodeId gather = graph.add_node("Gather", inputs, {graph.unique_name(name + "_stored")},
                                       graph.node(id).attributes);
  const ValueId found = graph.node(gather).outputs[0];
  const NodeId rows = graph.add_node(ops::kDecodeBlocks, {found},
                                     {graph.unique_name(name + "_decoded")}, form, ops::kDomain);
  const ValueId decoded = graph.node(rows).outputs[0];
  graph.mutable_value(decoded).dtype = DType::float32;
  graph.mutable_value(decoded).shape = shape;
  graph.mutable_value(found).dtype = DType::uint8;
  if (shape) shape->back() = Dim(graph.constant(inputs[0])->dims().back());
  graph.mutable_value(found).shape = std::move(shape);
  graph.replace_uses(real, decoded);
  graph.remove_node(id);
  return true;
}

/// x quantized and real again.
ValueId add_quantization(Graph& graph, ValueId x) {
  const std::string name = graph.value(x).name;
  const int64_t block = ops::kActivationBlock;
  const NodeId quantize =
      graph.add_node(ops::kDynamicQuantize, {x},
                     {graph.unique_name(name + "_codes"), graph.unique_name(name + "_scales")},
                     {{"block_size", block}}, ops::kDomain);
  const NodeId dequantize = graph.add_node("DequantizeLinear", graph.node(quantize).outputs,
                                           {graph.unique_name(name + "_quantized")},
                                           {{"axis", int64_t{-1}}, {"block_size", block}});
  return graph.node(dequantize).outputs[0];
}

}  // namespace

int64_t absorb_blocks(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  for (const NodeId id : graph.nodes()) {
    if (absorb_product(graph, id) || absorb_table(graph, id)) ++changes;
  }
  if (changes > 0) {
    graph.sort();
    graph.remove_dead();
  }
  return changes;
}

int64_t quantize_activations(Graph& graph, const PassContext&) {
  int64_t changes = 0;
  std::map<ValueId, ValueId> done;  // products of one value share its codes
  for (const NodeId id : graph.nodes()) {
    const Node* decode = product_weights(graph, graph.node(id));
    if (decode == nullptr || !has_codes(*decode)) continue;
    const ValueId x = graph.node(id).inputs[0];
    if (quantized_from(graph, x) != kNoId) continue;
    const auto [at, added] = done.try_emplace(x, kNoId);
    if (added) at->second = add_quantization(graph, x);
    graph.set_input(id, 0, at->second);
    ++changes;
  }
  if (changes > 0) graph.sort();
  return changes;
}

}  // namespace narrow
