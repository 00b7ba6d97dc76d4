// SPDX-License-Identifier: Apache-2.0
// Weights by rounding to nearest: the range of each unit (tensor, channel, group) decides its
// scale, at few bits improved by a search; then every weight goes to the nearest code.
#pragma once

#include <cstdint>
#include <vector>

#include "narrow/quant/quantize.h"
#include "narrow/quant/scheme.h"

namespace narrow {

/// Up to this width scales are searched: at more, clipping gains nothing and the extremes are what
/// others expect.
inline constexpr int kSearchedBits = 4;

/// How much an error in each weight matters: the mean square of the input it is multiplied with.
struct Importance {
  /// One value for each position along a row of the weights seen as a matrix [channels, row] (for
  /// channel_axis 1: [row, channels]); empty: every weight counts alike.
  std::vector<float> row;
  int64_t channel_axis = 0;
};

/// The grid for weights. Above 4 bits the extremes of each unit decide. At 4 bits and below the
/// scale with the least weighted squared error is searched, starting from those. Throws
/// numeric_failure for NaN and inf.
QuantParams weight_params(const Tensor& weights, const Scheme& scheme,
                          const Importance& importance = {});

/// Codes on that grid.
QuantizedTensor round_weights(const Tensor& weights, const Scheme& scheme,
                              const Importance& importance = {});

/// The bias of a layer as int32 codes with scale input_scale * weight_scale and zero_point 0.
/// Where a code would pass 2^30 (dead channels: tiny weights, large bias) the channel's weight
/// scale, a per_tensor one as a whole, is enlarged until it fits; `weights` is updated and the
/// channels are reported.
struct BiasResult {
  QuantizedTensor bias;
  std::vector<int64_t> widened;  // channels whose weight scale was enlarged
};
BiasResult round_bias(const Tensor& bias, float input_scale, const Tensor& float_weights,
                      QuantizedTensor& weights);

}  // namespace narrow
