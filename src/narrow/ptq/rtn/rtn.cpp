// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/rtn/rtn.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/ptq/rtn/scale_search.h"
#include "narrow/quant/requantize.h"

namespace narrow {
namespace {

constexpr int64_t kUnitsPerTask = 64;
// Half of int32: the other half is for the accumulator that the bias is added to.
constexpr double kLargestBias = 1073741824.0;

/// Elements of each unit, one unit after the other, in the order of the tensor.
struct UnitElements {
  std::vector<int64_t> index;  // of elements
  std::vector<int64_t> begin;  // of each unit in `index`; one more at the end
};

UnitElements elements_by_unit(const Tensor& weights, const Scheme& scheme, size_t units) {
  const auto count = static_cast<size_t>(weights.elements());
  std::vector<int64_t> unit(count);
  UnitElements e{std::vector<int64_t>(count), std::vector<int64_t>(units + 1, 0)};
  for (size_t i = 0; i < count; ++i) {
    unit[i] = unit_of(static_cast<int64_t>(i), weights.dims(), scheme);
    ++e.begin[static_cast<size_t>(unit[i]) + 1];
  }
  for (size_t u = 0; u < units; ++u) e.begin[u + 1] += e.begin[u];
  std::vector<int64_t> next(e.begin.begin(), e.begin.end() - 1);
  for (size_t i = 0; i < count; ++i) {
    e.index[static_cast<size_t>(next[static_cast<size_t>(unit[i])]++)] = static_cast<int64_t>(i);
  }
  return e;
}

/// The importance of an element by its position in its row.
class ElementImportance {
 public:
  ElementImportance(const Tensor& weights, const Importance& importance)
      : row_(importance.row), by_row_(importance.channel_axis != 0) {
    const auto length = static_cast<int64_t>(row_.size());
    columns_ = length > 0 ? weights.elements() / length : 1;
    if (length > 0 && weights.elements() % length != 0) {
      throw Error(ErrorCode::internal, "importance does not fit the weights");
    }
  }
  bool given() const { return !row_.empty(); }
  float at(int64_t element) const {
    const auto length = static_cast<int64_t>(row_.size());
    return row_[static_cast<size_t>(by_row_ ? element / columns_ : element % length)];
  }

 private:
  const std::vector<float>& row_;
  bool by_row_;
  int64_t columns_ = 1;
};

bool searches(const Scheme& scheme) {
  // Powers of two leave nothing to search.
  return scheme.bits <= kSearchedBits && scheme.scale_type != ScaleType::power_of_two &&
         scheme.symmetry != Symmetry::offset;
}

/// The grid again, after its scales were changed.
void requantize_weights(const Tensor& float_weights, QuantizedTensor& weights) {
  weights.codes = quantize(float_weights, weights.params);
}

}  // namespace

QuantParams weight_params(const Tensor& weights, const Scheme& scheme,
                          const Importance& importance) {
  QuantParams params = minmax_params(weights, scheme);  // also refuses NaN and inf
  if (!searches(scheme)) return params;
  params.scale = params.scale.clone();
  if (params.zero_point.defined()) params.zero_point = params.zero_point.clone();
  auto scale = params.scale.mutable_data<float>();
  auto zero_point = params.zero_point.defined() ? params.zero_point.mutable_data<int32_t>()
                                                : std::span<int32_t>();
  const UnitElements units = elements_by_unit(weights, scheme, scale.size());
  const ElementImportance weight_of(weights, importance);
  const auto values = weights.data<float>();
  parallel_for(static_cast<int64_t>(scale.size()), kUnitsPerTask, [&](int64_t first, int64_t last) {
    std::vector<float> x;
    std::vector<float> w;
    for (auto u = static_cast<size_t>(first); u < static_cast<size_t>(last); ++u) {
      x.clear();
      w.clear();
      for (int64_t i = units.begin[u]; i < units.begin[u + 1]; ++i) {
        const int64_t element = units.index[static_cast<size_t>(i)];
        x.push_back(values[static_cast<size_t>(element)]);
        if (weight_of.given()) w.push_back(weight_of.at(element));
      }
      // Inputs that calibration never saw: their weights count alike.
      if (std::all_of(w.begin(), w.end(), [](float v) { return v == 0; })) w.clear();
      const ScaleZeroPoint best = search_scale(x, w, scheme);
      scale[u] = store_scale(best.scale, scheme.scale_type);
      if (!zero_point.empty()) zero_point[u] = best.zero_point;
    }
  });
  return params;
}

QuantizedTensor round_weights(const Tensor& weights, const Scheme& scheme,
                              const Importance& importance) {
  QuantizedTensor out;
  out.params = weight_params(weights, scheme, importance);
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
