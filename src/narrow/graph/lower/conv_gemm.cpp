// SPDX-License-Identifier: Apache-2.0
// Conv, Gemm and MatMul between quantized operands.
#include <fmt/format.h>

#include <algorithm>

#include "narrow/graph/lower/patterns.h"
#include "narrow/graph/lowered_ops.h"

namespace narrow::lower {
namespace {

constexpr const char* kFloatOutput = "its result is not quantized";

bool output_allowed(const Tail& tail, const LoweringOptions& options) {
  return tail.quantize != kNoId || options.float_outputs;
}

/// scale (and zero_point) per output channel, where the channel is dimension `axis` of the weights.
std::string check_weight_axis(const Graph& graph, const QdqGrid& w, int64_t axis) {
  if (w.block_size != 0) return "its weights are quantized in groups";
  if (w.per_tensor) return {};
  const auto rank = graph.constant(w.codes)->rank();
  if (normalize_axis(w.axis, rank) != axis) {
    return fmt::format("its weights are quantized along axis {}, not the output axis {}", w.axis,
                       axis);
  }
  return {};
}

struct Bias {
  ValueId codes = kNoId;
  std::string reason;
};

Bias add_bias(Graph& graph, ValueId bias, const QdqGrid& x, const QdqGrid& w, int64_t channels) {
  Bias out;
  const auto codes = bias_codes(graph, bias, scalar_scale(graph, x), *graph.constant(w.scale),
                                channels, &out.reason);
  if (codes && codes->defined()) {
    const std::string name = graph.value(bias).name + "_int32";
    out.codes = graph.add_initializer(graph.unique_name(name), *codes);
  }
  return out;
}

/// The operands of a product with constant weights, or why there are none.
struct Product {
  std::optional<QdqGrid> x;
  std::optional<QdqGrid> w;
  std::string reason;
  bool quantized() const { return x && w && reason.empty(); }
};

Product select_product(const Graph& graph, const Node& node, int64_t weight_axis) {
  Product p;
  p.x = activation_grid(graph, node.input(0));
  p.w = weight_grid(graph, node.input(1));
  if (p.x && p.w) {
    p.reason = check_weight_axis(graph, *p.w, weight_axis);
  } else if (p.x) {
    p.reason = "its weights are not quantized constants of at most 8 bits";
  } else if (p.w) {
    const auto any = dequantized_from(graph, node.input(0));
    p.reason = any ? "its input is not quantized per tensor with 8 bits" : "";
  }
  return p;
}

struct WeightOnly {
  const char* op;
  Attributes attributes;
  ValueId bias = kNoId;
  int64_t out_axis;     // one scale per output channel
  int64_t reduce_axis;  // groups run along it
};

Outcome lower_weight_only(Graph& graph, NodeId id, const QdqGrid& w, WeightOnly how,
                          const LoweringOptions& options) {
  if (!options.weight_only) return Outcome::refuse("only its weights are quantized");
  const Node& node = graph.node(id);
  if (how.bias != kNoId && graph.constant(how.bias) == nullptr) {
    return Outcome::refuse("its bias is not a float constant");
  }
  const int64_t axis =
      w.per_tensor ? how.out_axis : normalize_axis(w.axis, graph.constant(w.codes)->rank());
  if (axis != (w.block_size == 0 ? how.out_axis : how.reduce_axis)) {
    return Outcome::refuse(fmt::format("its weights are quantized along axis {}", axis));
  }
  if (w.block_size != 0) how.attributes["block_size"] = w.block_size;
  emit(graph, Tail(node.outputs[0]), how.op,
       {node.inputs[0], w.codes, w.scale, w.zero_point, how.bias}, 5, std::move(how.attributes),
       node.name);
  return Outcome::done();
}

/// Convolution weights in groups stand as a matrix [M, C/group * kernel] behind a Reshape: the
/// codes in the convolution's own shape, with the grid of the matrix.
std::optional<QdqGrid> grouped_conv_weights(Graph& graph, ValueId weights) {
  const Node* reshape = graph.producer(weights);
  if (reshape == nullptr || !reshape->is("Reshape")) return std::nullopt;
  auto grid = weight_grid(graph, reshape->inputs[0]);
  const Tensor* shape = graph.constant(reshape->input(1));
  if (!grid || grid->block_size == 0 || shape == nullptr) return std::nullopt;
  const Dims dims = shape->to_ints();
  const Tensor& codes = *graph.constant(grid->codes);
  const bool plain = std::all_of(dims.begin(), dims.end(), [](int64_t d) { return d > 0; });
  if (!plain || dims.empty() || dims[0] != codes.dim(0) || num_elements(dims) != codes.elements()) {
    return std::nullopt;
  }
  const std::string name = graph.unique_name(graph.value(grid->codes).name + "_kernel");
  grid->codes = graph.add_initializer(name, codes.reshaped(dims));
  return grid;
}

/// The bias behind a MatMul: Add of a constant vector over the last axis.
struct MatMulBias {
  ValueId bias = kNoId;
  ValueId value = kNoId;  // where the sum is
};

MatMulBias bias_after(const Graph& graph, ValueId product, int64_t n) {
  const NodeId next = graph.single_user(product);
  if (next == kNoId || !graph.node(next).is("Add")) return {kNoId, product};
  const Node& add = graph.node(next);
  const ValueId other = add.inputs[0] == product ? add.inputs[1] : add.inputs[0];
  const auto grid = dequantized_from(graph, other);
  const Tensor* constant = graph.constant(grid ? grid->codes : other);
  if (constant == nullptr || constant->elements() != n || constant->rank() == 0 ||
      constant->dims().back() != n) {
    return {kNoId, product};
  }
  return {other, add.outputs[0]};
}

/// MatMul of two activations.
Outcome lower_activation_product(Graph& graph, NodeId id, const QdqGrid& a,
                                 const LoweringOptions& options) {
  const auto b = activation_grid(graph, graph.node(id).inputs[1]);
  if (!b) return Outcome::refuse("only one of its inputs is quantized");
  const Node& node = graph.node(id);
  const Tail tail = tail_of(graph, node.outputs[0]);
  if (!output_allowed(tail, options)) return Outcome::refuse(kFloatOutput);
  emit(graph, tail, ops::kQGemm,
       {a.codes, a.scale, a.zero_point, b->codes, b->scale, b->zero_point, kNoId}, 6, {},
       node.name);
  return Outcome::done();
}

}  // namespace

Outcome lower_conv(Graph& graph, NodeId id, const LoweringOptions& options) {
  const Node& node = graph.node(id);
  if (const auto grouped = grouped_conv_weights(graph, node.input(1))) {
    if (dequantized_from(graph, node.input(0))) {
      return Outcome::refuse("its weights are quantized in groups");
    }
    return lower_weight_only(
        graph, id, *grouped,
        {ops::kWConv, graph.node(id).attributes, graph.node(id).input(2), 0, 1}, options);
  }
  const Product p = select_product(graph, node, 0);
  if (!p.reason.empty()) return Outcome::refuse(p.reason);
  if (!p.w) return Outcome::none();
  if (!p.x) {
    return lower_weight_only(graph, id, *p.w, {ops::kWConv, node.attributes, node.input(2), 0, -1},
                             options);
  }
  const int64_t channels = graph.constant(p.w->codes)->dim(0);
  const Bias bias = add_bias(graph, node.input(2), *p.x, *p.w, channels);
  if (!bias.reason.empty()) return Outcome::refuse(bias.reason);
  const Tail tail = tail_of(graph, graph.node(id).outputs[0]);
  if (!output_allowed(tail, options)) return Outcome::refuse(kFloatOutput);
  emit(graph, tail, ops::kQConv,
       {p.x->codes, p.x->scale, p.x->zero_point, p.w->codes, p.w->scale, p.w->zero_point,
        bias.codes},
       6, graph.node(id).attributes, graph.node(id).name);
  return Outcome::done();
}

Outcome lower_gemm(Graph& graph, NodeId id, const LoweringOptions& options) {
  const Node& node = graph.node(id);
  const bool trans_b = node.int_or("transB", 0) != 0;
  const Product p = select_product(graph, node, trans_b ? 0 : 1);
  if (!p.reason.empty()) return Outcome::refuse(p.reason);
  if (!p.w) return Outcome::none();
  if (node.int_or("transA", 0) != 0 || node.float_or("alpha", 1) != 1 ||
      node.float_or("beta", 1) != 1) {
    return Outcome::refuse("transA, alpha or beta is set");
  }
  Attributes attributes;
  if (trans_b) attributes["transB"] = int64_t{1};
  if (!p.x) {
    return lower_weight_only(
        graph, id, *p.w,
        {ops::kWGemm, std::move(attributes), node.input(2), trans_b ? 0 : 1, trans_b ? 1 : 0},
        options);
  }
  const int64_t channels = graph.constant(p.w->codes)->dim(trans_b ? 0 : 1);
  const Bias bias = add_bias(graph, node.input(2), *p.x, *p.w, channels);
  if (!bias.reason.empty()) return Outcome::refuse(bias.reason);
  const Tail tail = tail_of(graph, graph.node(id).outputs[0]);
  if (!output_allowed(tail, options)) return Outcome::refuse(kFloatOutput);
  emit(graph, tail, ops::kQGemm,
       {p.x->codes, p.x->scale, p.x->zero_point, p.w->codes, p.w->scale, p.w->zero_point,
        bias.codes},
       6, std::move(attributes), graph.node(id).name);
  return Outcome::done();
}

Outcome lower_matmul(Graph& graph, NodeId id, const LoweringOptions& options) {
  const Node& node = graph.node(id);
  const auto x = activation_grid(graph, node.input(0));
  const auto w = weight_grid(graph, node.input(1));
  if (!w) return x ? lower_activation_product(graph, id, *x, options) : Outcome::none();
  const Tensor& codes = *graph.constant(w->codes);
  if (codes.rank() != 2) return Outcome::refuse("its constant weights are no matrix");
  const MatMulBias after = bias_after(graph, node.outputs[0], codes.dim(1));
  if (!x) {
    if (dequantized_from(graph, node.input(0))) {
      return Outcome::refuse("its input is not quantized per tensor with 8 bits");
    }
    return lower_weight_only(graph, id, *w, {ops::kWGemm, {}, kNoId, 1, 0}, options);
  }
  const std::string refused = check_weight_axis(graph, *w, 1);
  if (!refused.empty()) return Outcome::refuse(refused);
  Bias bias = add_bias(graph, after.bias, *x, *w, codes.dim(1));
  // A bias that cannot be absorbed stays an Add behind the product.
  const ValueId end = bias.reason.empty() ? after.value : graph.node(id).outputs[0];
  const Tail tail = tail_of(graph, end);
  if (!output_allowed(tail, options)) return Outcome::refuse(kFloatOutput);
  emit(graph, tail, ops::kQGemm,
       {x->codes, x->scale, x->zero_point, w->codes, w->scale, w->zero_point, bias.codes}, 6, {},
       graph.node(id).name);
  return Outcome::done();
}

}  // namespace narrow::lower
