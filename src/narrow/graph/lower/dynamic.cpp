// SPDX-License-Identifier: Apache-2.0
// Dynamic quantization as ONNX writes it:
//   DynamicQuantizeLinear -> MatMulInteger | ConvInteger -> Cast -> Mul(s_x * s_w) [-> Add(bias)]
#include <algorithm>
#include <array>

#include "narrow/graph/lower/patterns.h"
#include "narrow/graph/lowered_ops.h"

namespace narrow::lower {
namespace {

struct DynamicProduct {
  ValueId x = kNoId;        // the float input of DynamicQuantizeLinear
  ValueId w_scale = kNoId;  // constant
  ValueId end = kNoId;      // the scaled, biased result
  ValueId bias = kNoId;     // float constant, or absent
  std::string reason;
};

/// s_x * s_w, whatever the order, s_x being the second output of `quantizer`.
ValueId weight_scale(const Graph& graph, ValueId product, ValueId x_scale) {
  const Node* mul = graph.producer(product);
  if (mul == nullptr || !mul->is("Mul")) return kNoId;
  for (const size_t i : {size_t{0}, size_t{1}}) {
    if (mul->inputs[i] == x_scale && graph.constant(mul->inputs[1 - i]) != nullptr) {
      return mul->inputs[1 - i];
    }
  }
  return kNoId;
}

/// A constant of `channels` elements that lie along the channel axis once broadcast.
bool is_channel_bias(const Tensor& t, int64_t channels, int64_t trailing) {
  if (t.elements() != channels || static_cast<int64_t>(t.rank()) <= trailing) return false;
  return t.dims()[t.rank() - 1 - static_cast<size_t>(trailing)] == channels;
}

DynamicProduct select(const Graph& graph, const Node& node, int64_t channels, int64_t trailing) {
  DynamicProduct p;
  const Node* quantizer = graph.producer(node.inputs[0]);
  if (quantizer == nullptr || !quantizer->is("DynamicQuantizeLinear") ||
      node.inputs[0] != quantizer->outputs[0] || node.input(2) != quantizer->output(2)) {
    p.reason = "its input is not quantized by DynamicQuantizeLinear";
    return p;
  }
  const NodeId cast = graph.single_user(node.outputs[0]);
  if (cast == kNoId || !graph.node(cast).is("Cast")) {
    p.reason = "its result is not cast to float";
    return p;
  }
  const ValueId real = graph.node(cast).outputs[0];
  const NodeId mul = graph.single_user(real);
  if (mul == kNoId || !graph.node(mul).is("Mul")) {
    p.reason = "its result is not scaled";
    return p;
  }
  const Node& scaling = graph.node(mul);
  const ValueId factor = scaling.inputs[0] == real ? scaling.inputs[1] : scaling.inputs[0];
  p.w_scale = weight_scale(graph, factor, quantizer->outputs[1]);
  if (p.w_scale == kNoId) {
    p.reason = "its result is not scaled by the scales of its inputs";
    return p;
  }
  const int64_t scales = graph.constant(p.w_scale)->elements();
  if (scales != 1 && !is_channel_bias(*graph.constant(p.w_scale), channels, trailing)) {
    p.reason = "its weight scales do not lie along the output channels";
    return p;
  }
  p.x = quantizer->inputs[0];
  p.end = scaling.outputs[0];
  const NodeId next = graph.single_user(p.end);
  if (next != kNoId && graph.node(next).is("Add")) {
    const Node& add = graph.node(next);
    const ValueId other = add.inputs[0] == p.end ? add.inputs[1] : add.inputs[0];
    const Tensor* bias = graph.constant(other);
    if (bias != nullptr && is_channel_bias(*bias, channels, trailing)) {
      p.bias = other;
      p.end = add.outputs[0];
    }
  }
  return p;
}

/// The constant as a vector of its elements.
ValueId as_vector(Graph& graph, ValueId constant) {
  if (constant == kNoId) return kNoId;
  const Tensor& t = *graph.constant(constant);
  if (t.rank() <= 1) return constant;
  return graph.add_initializer(graph.unique_name(graph.value(constant).name + "_vector"),
                               t.reshaped({t.elements()}));
}

Outcome lower_dynamic(Graph& graph, NodeId id, const char* op, int64_t channels, int64_t trailing,
                      const LoweringOptions& options) {
  const Node node = graph.node(id);
  const DynamicProduct p = select(graph, node, channels, trailing);
  if (!p.reason.empty()) return Outcome::refuse(p.reason);
  Attributes attributes = node.attributes;
  attributes["granularity"] = std::string(options.sample_ranges ? "per_sample" : "per_tensor");
  const ValueId scale = as_vector(graph, p.w_scale);
  const ValueId bias = as_vector(graph, p.bias);
  emit(graph, Tail(p.end), op, {p.x, node.inputs[1], scale, node.input(3), bias}, 5,
       std::move(attributes), node.name);
  return Outcome::done();
}

}  // namespace

Outcome lower_dynamic_matmul(Graph& graph, NodeId id, const LoweringOptions& options) {
  if (!options.dynamic) return Outcome::none();
  const Tensor* w = graph.constant(graph.node(id).input(1));
  if (w == nullptr || w->rank() != 2) return Outcome::refuse("its weights are no constant matrix");
  return lower_dynamic(graph, id, ops::kDynamicQGemm, w->dim(1), 0, options);
}

Outcome lower_dynamic_conv(Graph& graph, NodeId id, const LoweringOptions& options) {
  if (!options.dynamic) return Outcome::none();
  const Tensor* w = graph.constant(graph.node(id).input(1));
  if (w == nullptr || w->rank() < 3) return Outcome::refuse("its weights are not constant");
  return lower_dynamic(graph, id, ops::kDynamicQConv, w->dim(0),
                       static_cast<int64_t>(w->rank()) - 2, options);
}

}  // namespace narrow::lower
