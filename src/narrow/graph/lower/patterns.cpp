// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/lower/patterns.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/graph/lowered_ops.h"
#include "narrow/quant/quantize.h"
#include "narrow/quant/requantize.h"

namespace narrow::lower {
namespace {

/// The bound of a Clip: an absent input is unbounded, one that is not constant cannot be absorbed.
bool clip_bound(const Graph& graph, ValueId input, float& bound) {
  if (input == kNoId) return true;
  const Tensor* value = graph.constant(input);
  if (value == nullptr || value->elements() != 1 || !is_float(value->dtype())) return false;
  bound = value->to_floats()[0];
  return !std::isnan(bound);
}

/// Narrows the tail's limits by the node if it is an activation that is a pair of limits.
bool absorb_activation(const Graph& graph, const Node& node, Tail& tail) {
  float lo = -std::numeric_limits<float>::infinity();
  float hi = std::numeric_limits<float>::infinity();
  if (node.is("Relu")) {
    lo = 0;
  } else if (node.is("Clip")) {
    if (!clip_bound(graph, node.input(1), lo) || !clip_bound(graph, node.input(2), hi))
      return false;
    if (lo > hi) return false;
  } else {
    return false;
  }
  // clip(clip(x, a, b), c, d) has the limits clamp(a, c, d), clamp(b, c, d).
  tail.min = std::clamp(tail.min, lo, hi);
  tail.max = std::clamp(tail.max, lo, hi);
  return true;
}

}  // namespace

bool is_8_bit(DType dtype) {
  return dtype == DType::int8 || dtype == DType::uint8;
}

Tail tail_of(const Graph& graph, ValueId from) {
  Tail tail(from);
  while (true) {
    const NodeId next = graph.single_user(tail.value);
    if (next == kNoId) return tail;
    const Node& node = graph.node(next);
    if (node.inputs[0] != tail.value) return tail;
    if (node.is("QuantizeLinear")) {
      const auto grid = quantizes_to(graph, next);
      if (grid && grid->per_tensor && is_8_bit(grid->code_dtype)) {
        tail.quantize = next;
        tail.grid = grid;
      }
      return tail;
    }
    if (!absorb_activation(graph, node, tail)) return tail;
    tail.value = node.outputs[0];
  }
}

std::optional<QdqGrid> activation_grid(const Graph& graph, ValueId value) {
  if (value == kNoId) return std::nullopt;
  const auto grid = dequantized_from(graph, value);
  if (!grid || !grid->per_tensor || !is_8_bit(grid->code_dtype)) return std::nullopt;
  return grid;
}

std::optional<QdqGrid> weight_grid(const Graph& graph, ValueId value) {
  if (value == kNoId) return std::nullopt;
  const auto grid = dequantized_from(graph, value);
  if (!grid || graph.constant(grid->codes) == nullptr) return std::nullopt;
  if (!is_integer(grid->code_dtype) || bits(grid->code_dtype) > 8) return std::nullopt;
  return grid;
}

float scalar_scale(const Graph& graph, const QdqGrid& grid) {
  return graph.constant(grid.scale)->to_floats()[0];
}

int64_t scalar_zero_point(const Graph& graph, const QdqGrid& grid) {
  const Tensor* zero_point = graph.constant(grid.zero_point);
  return zero_point == nullptr ? 0 : zero_point->to_ints()[0];
}

bool same_grid(const Graph& graph, const QdqGrid& a, const QdqGrid& b) {
  return a.code_dtype == b.code_dtype && scalar_scale(graph, a) == scalar_scale(graph, b) &&
         scalar_zero_point(graph, a) == scalar_zero_point(graph, b);
}

int64_t code_of(const Graph& graph, const QdqGrid& grid, float bound) {
  const auto lo = static_cast<float>(integer_min(grid.code_dtype));
  const auto hi = static_cast<float>(integer_max(grid.code_dtype));
  const float code = round_half_even(bound / scalar_scale(graph, grid)) +
                     static_cast<float>(scalar_zero_point(graph, grid));
  return static_cast<int64_t>(std::clamp(code, lo, hi));
}

std::optional<Tensor> bias_codes(const Graph& graph, ValueId bias, float x_scale,
                                 const Tensor& w_scale, int64_t channels, std::string* reason) {
  if (bias == kNoId) return Tensor();
  std::vector<float> real;
  std::vector<int64_t> stored;
  std::vector<float> stored_scale;
  if (const Tensor* constant = graph.constant(bias)) {
    real = constant->to_floats();
  } else if (const auto grid = dequantized_from(graph, bias);
             grid && graph.constant(grid->codes) != nullptr &&
             (grid->zero_point == kNoId || scalar_zero_point(graph, *grid) == 0)) {
    stored = graph.constant(grid->codes)->to_ints();
    stored_scale = graph.constant(grid->scale)->to_floats();
  } else {
    *reason = "its bias is not constant";
    return std::nullopt;
  }
  const size_t count = real.empty() ? stored.size() : real.size();
  if (static_cast<int64_t>(count) != channels) {
    *reason = fmt::format("its bias has {} elements for {} channels", count, channels);
    return std::nullopt;
  }
  const std::vector<float> w = w_scale.to_floats();
  Tensor codes(DType::int32, {channels});
  auto out = codes.mutable_data<int32_t>();
  for (size_t i = 0; i < count; ++i) {
    const float s_w = w[w.size() == 1 ? 0 : i];
    float value;
    if (real.empty()) {
      const double s = stored_scale[stored_scale.size() == 1 ? 0 : i];
      const double step = static_cast<double>(x_scale) * static_cast<double>(s_w);
      // Equal up to the rounding of the float32 scale: the stored codes are the bias codes.
      if (std::abs(s - step) <= 1e-6 * std::abs(step)) {
        out[i] = static_cast<int32_t>(stored[i]);
        continue;
      }
      value = static_cast<float>(static_cast<double>(stored[i]) * s);
    } else {
      value = real[i];
    }
    const auto code = quantize_bias(value, x_scale, s_w);
    if (!code) {
      *reason = fmt::format("bias {} does not fit int32 on its grid", i);
      return std::nullopt;
    }
    out[i] = *code;
  }
  return codes;
}

void set_code_limits(const Graph& graph, const Tail& tail, Attributes& attributes) {
  const DType dtype = tail.grid->code_dtype;
  const int64_t lo = code_of(graph, *tail.grid, tail.min);
  const int64_t hi = code_of(graph, *tail.grid, tail.max);
  if (lo > integer_min(dtype)) attributes["qmin"] = lo;
  if (hi < integer_max(dtype)) attributes["qmax"] = hi;
}

void set_float_limits(const Tail& tail, Attributes& attributes) {
  if (tail.min > -std::numeric_limits<float>::infinity()) attributes["min"] = tail.min;
  if (tail.max < std::numeric_limits<float>::infinity()) attributes["max"] = tail.max;
}

void annotate(Graph& graph, ValueId value, DType dtype, ValueId shape_of) {
  graph.mutable_value(value).dtype = dtype;
  graph.mutable_value(value).shape = graph.value(shape_of).shape;
}

void replace_codes(Graph& graph, NodeId quantize, ValueId codes) {
  const ValueId old = graph.node(quantize).outputs[0];
  graph.replace_uses(old, codes);
}

void emit(Graph& graph, const Tail& tail, const char* op, std::vector<ValueId> inputs,
          size_t y_index, Attributes attributes, const std::string& name) {
  const bool quantized = tail.quantize != kNoId;
  const ValueId scale = quantized ? tail.grid->scale : kNoId;
  const ValueId zero_point = quantized ? tail.grid->zero_point : kNoId;
  const auto at = inputs.begin() + static_cast<std::ptrdiff_t>(y_index);
  inputs.insert(at, {scale, zero_point});
  while (!inputs.empty() && inputs.back() == kNoId) inputs.pop_back();
  if (quantized) {
    set_code_limits(graph, tail, attributes);
  } else {
    set_float_limits(tail, attributes);
  }
  const ValueId old = quantized ? graph.node(tail.quantize).outputs[0] : tail.value;
  const NodeId node =
      graph.add_node(op, std::move(inputs), {graph.value(old).name + "_integer"},
                     std::move(attributes), ops::kDomain, name.empty() ? "" : name + "_integer");
  const ValueId out = graph.node(node).outputs[0];
  annotate(graph, out, quantized ? tail.grid->code_dtype : DType::float32, tail.value);
  graph.replace_uses(old, out);
}

}  // namespace narrow::lower
