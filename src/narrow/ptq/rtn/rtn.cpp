// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/rtn/rtn.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/quant/requantize.h"

namespace narrow {
namespace {

constexpr int kFewBits = 4;  // where one more code of 2^bits matters; above, every target agrees on
                             // [-qmax, qmax]
// Half of int32: the other half is for the accumulator that the bias is added to.
constexpr double kLargestBias = 1073741824.0;

struct Extremes {
  std::vector<float> low;
  std::vector<float> high;
};

Extremes unit_extremes(const Tensor& weights, const Scheme& scheme, size_t units) {
  Extremes e{std::vector<float>(units, 0.0f), std::vector<float>(units, 0.0f)};
  const auto values = weights.data<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    const auto u = static_cast<size_t>(unit_of(static_cast<int64_t>(i), weights.dims(), scheme));
    e.low[u] = std::min(e.low[u], values[i]);
    e.high[u] = std::max(e.high[u], values[i]);
  }
  return e;
}

/// The grid again, after its scales were changed.
void requantize_weights(const Tensor& float_weights, QuantizedTensor& weights) {
  weights.codes = quantize(float_weights, weights.params);
}

}  // namespace

QuantParams weight_params(const Tensor& weights, const Scheme& scheme) {
  QuantParams params = minmax_params(weights, scheme);
  const bool finer = scheme.symmetry == Symmetry::symmetric && scheme.is_signed &&
                     !scheme.narrow_range && scheme.bits <= kFewBits &&
                     scheme.scale_type == ScaleType::float32;
  if (!finer) return params;
  Tensor scale = params.scale.clone();
  auto s = scale.mutable_data<float>();
  const Extremes e = unit_extremes(weights, scheme, s.size());
  for (size_t u = 0; u < s.size(); ++u) {
    const float step = std::max(e.low[u] / static_cast<float>(scheme.qmin()),
                                e.high[u] / static_cast<float>(scheme.qmax()));
    if (step > 0) s[u] = step;
  }
  params.scale = scale;
  return params;
}

QuantizedTensor round_weights(const Tensor& weights, const Scheme& scheme) {
  QuantizedTensor out;
  out.params = weight_params(weights, scheme);
  out.codes = quantize(weights, out.params);
  return out;
}

BiasResult round_bias(const Tensor& bias, float input_scale, const Tensor& float_weights,
                      QuantizedTensor& weights) {
  BiasResult result;
  const std::vector<float> values = bias.to_floats();
  Tensor scales = weights.params.scale.clone();
  auto w = scales.mutable_data<float>();
  const auto weight_scale = [&](size_t channel) -> float& {
    return w[w.size() == 1 ? 0 : channel];
  };
  for (size_t c = 0; c < values.size(); ++c) {
    if (!std::isfinite(values[c])) {
      throw Error(ErrorCode::numeric_failure, fmt::format("bias element {} is {}", c, values[c]));
    }
    const double code = std::abs(static_cast<double>(values[c])) /
                        (static_cast<double>(input_scale) * static_cast<double>(weight_scale(c)));
    if (code < kLargestBias) continue;
    // A little more than needed, so that the rounding of the scale cannot undo it.
    weight_scale(c) =
        static_cast<float>(static_cast<double>(weight_scale(c)) * code / kLargestBias * 1.0001);
    result.widened.push_back(static_cast<int64_t>(c));
  }
  if (!result.widened.empty()) {
    weights.params.scale = scales;
    requantize_weights(float_weights, weights);
  }

  std::vector<float> bias_scale(w.size());
  for (size_t i = 0; i < w.size(); ++i) {
    bias_scale[i] =
        static_cast<float>(static_cast<double>(input_scale) * static_cast<double>(w[i]));
  }
  Tensor codes(DType::int32, bias.dims());
  auto q = codes.mutable_data<int32_t>();
  for (size_t c = 0; c < values.size(); ++c) {
    const auto code = quantize_bias(values[c], input_scale, weight_scale(c));
    if (!code) {
      throw Error(ErrorCode::numeric_failure,
                  fmt::format("bias element {} ({}) does not fit int32", c, values[c]));
    }
    q[c] = *code;
  }
  result.bias.codes = codes;
  Scheme& scheme = result.bias.params.scheme;
  const bool per_axis = w.size() > 1;
  scheme.granularity = per_axis ? Granularity::per_axis : Granularity::per_tensor;
  // The channels are the last axis of [N], [1, N], ...
  scheme.axis = per_axis ? static_cast<int64_t>(bias.rank()) - 1 : 0;
  result.bias.params.scale =
      per_axis ? Tensor::vector(bias_scale) : Tensor::scalar(bias_scale.front());
  return result;
}

}  // namespace narrow
