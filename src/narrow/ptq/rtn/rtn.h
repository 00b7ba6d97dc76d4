// SPDX-License-Identifier: Apache-2.0
// Weights by rounding to nearest: the range of each unit (tensor, channel, group) decides its
// scale, then every weight goes to the nearest code.
#pragma once

#include <string>
#include <vector>

#include "narrow/quant/quantize.h"
#include "narrow/quant/scheme.h"

namespace narrow {

/// The grid for weights. Symmetric codes of at most 4 bits use the additional negative code: where
/// the largest magnitude is negative it gets the code qmin, which makes the step up to 1/qmax
/// finer. Throws numeric_failure for NaN and inf.
QuantParams weight_params(const Tensor& weights, const Scheme& scheme);

/// Codes on that grid.
QuantizedTensor round_weights(const Tensor& weights, const Scheme& scheme);

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
