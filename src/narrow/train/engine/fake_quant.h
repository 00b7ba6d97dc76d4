// SPDX-License-Identifier: Apache-2.0
// Rounding to a grid with gradients. Forward is quant/quantize.h's arithmetic, value for value:
//   t = clamp(x / s, qmin - z, qmax - z), q = rne(t), y = s * q
// Backward, g being the gradient of y:
//   dx = g where t was not clamped, else 0
//   ds = inside * sum of g * (q - x / s) where it was not + sum of g * q where it was
//   dz = -s * sum of g where it was
// How a quantizer learns is a GridRule; what the exporter sees is a linear grid in any case.
#pragma once

#include <functional>

#include "narrow/quant/scheme.h"
#include "narrow/train/engine/kernels.h"
#include "narrow/train/engine/torch.h"
#include "narrow/train/qat.h"

namespace narrow::train {

/// A grid whose numbers may be trained.
class Grid {
 public:
  /// Throws unsupported for grids with an offset.
  Grid(const QuantParams& params, const GridRule& rule);

  /// x on the grid. The scale's gradient is divided by sqrt(values of a unit * qmax) where the rule
  /// says so (Esser et al., 2020), so that scales and weights learn at one pace. `into`: x is of no
  /// use to anybody else, and what is rounded may take its memory.
  /// `portable`, or x on another device than the CPU: with libtorch's functions.
  torch::Tensor operator()(const torch::Tensor& x, bool into = false, bool portable = false) const;
  /// x as the rule reshapes it before it is rounded; what is exported in place of x.
  torch::Tensor shaped(const torch::Tensor& x) const;

  /// Logarithms of the scales' magnitudes, one per unit, a leaf: what is trained, so that scales
  /// keep their sign and small ones learn at the pace of large ones.
  torch::Tensor& log_scale() { return log_scale_; }
  const torch::Tensor& log_scale() const { return log_scale_; }
  /// Zero points before they are rounded, one per unit, a leaf.
  torch::Tensor& zero() { return zero_; }
  const torch::Tensor& zero() const { return zero_; }
  /// All that is negative becomes 0, whatever is learned.
  bool ends_at_zero() const;
  const GridRule& rule() const { return rule_; }
  const Scheme& scheme() const { return params_.scheme; }
  /// As the exporter wants them: the numbers that these logarithms and zero points stand for.
  QuantParams params(const torch::Tensor& log_scale, const torch::Tensor& zero) const;
  /// body(first element, values in a row that share a unit), over all of x.
  void for_runs(const torch::Tensor& x,
                const std::function<void(int64_t first, const GridRun& run)>& body) const;
  /// The scales that logarithms stand for, as a file has them (binary16, where the scheme says so).
  torch::Tensor scales(const torch::Tensor& log_scale) const;
  /// Scales from the extremes of x, which is shaped already.
  void follow(const torch::Tensor& x);
  /// The grid of the values between two numbers; per tensor.
  struct Range {
    float low = 0;
    float high = 0;
  };
  void set_range(const Range& range);
  Range range() const;

 private:
  QuantParams params_;
  GridRule rule_;
  torch::Tensor first_scale_;
  torch::Tensor first_log_;
  torch::Tensor log_scale_;
  torch::Tensor zero_;
};

}  // namespace narrow::train
