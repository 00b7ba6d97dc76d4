// SPDX-License-Identifier: Apache-2.0
// Rounding to a grid with gradients. Forward is quant/quantize.h's arithmetic, value for value:
//   t = clamp(x / s, qmin - z, qmax - z), q = rne(t), y = s * q
// Backward (Esser et al., Learned Step Size Quantization, 2020), g being the gradient of y:
//   dx = g where t was not clamped, else 0
//   ds = sum of g * (q - x / s) where it was not, of g * q where it was
#pragma once

#include <torch/torch.h>

#include <vector>

#include "narrow/quant/scheme.h"

namespace narrow::train {

/// A grid whose scales may be trained.
class Grid {
 public:
  /// Throws unsupported for grids with an offset.
  explicit Grid(const QuantParams& params);

  /// x on the grid. The scale's gradient is divided by sqrt(values of a unit * qmax), as in the
  /// paper, so that scales and weights learn at one pace.
  torch::Tensor operator()(const torch::Tensor& x) const;

  /// Logarithms of the scales, one per unit, a leaf: what is trained, so that scales stay positive
  /// and small ones learn at the pace of large ones.
  torch::Tensor& log_scale() { return log_scale_; }
  const torch::Tensor& log_scale() const { return log_scale_; }
  /// As the exporter wants them: the scales that these logarithms stand for.
  QuantParams params(const torch::Tensor& log_scale) const;
  /// Scales from the extremes of x.
  void follow(const torch::Tensor& x);

 private:
  QuantParams params_;
  torch::Tensor log_scale_;
  std::vector<float> low_;   // qmin - zero_point, of each unit
  std::vector<float> high_;  // qmax - zero_point
};

}  // namespace narrow::train
