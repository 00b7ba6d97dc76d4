// SPDX-License-Identifier: Apache-2.0
// What the encoders share: a block brought to about 1 in magnitude, its weights, and scales that
// are rounded to the binary16 they are stored in. Internal to quant/blocks.
#pragma once

#include <algorithm>
#include <cstdint>

#include "narrow/core/half.h"
#include "narrow/quant/blocks/block_codec.h"
#include "narrow/quant/blocks/lanes.h"

namespace narrow::blocks {

/// A block times a power of two, which is exact: products and squares of whatever floats the file
/// holds neither overflow nor vanish.
class ScaledBlock {
 public:
  /// Multiplies `count` values into `out`; the largest magnitude comes into [1, 2) unless all are 0
  /// or subnormal.
  ScaledBlock(const float* x, int count, float* out);

  /// The largest magnitude in `out`.
  float amax() const { return amax_; }
  /// Rounds a scale of the scaled block to what a file can hold; `scale` becomes its exact value.
  /// Past the largest finite binary16 it saturates.
  Half store(float& scale) const;

 private:
  float up_ = 1;
  float down_ = 1;
  float amax_ = 0;
};

/// Weights of a block's values for the error: the importance (1 if null), floored at a thousandth
/// of its mean, times the emphasis. Their mean is about 1.
void error_weights(const float* importance, const float* scaled_x, int count, Emphasis emphasis,
                   float* out);

inline namespace NARROW_BLOCKS_ISA {

/// What scales are multiplied by for Emphasis::direction and both (else 1): `error` is the
/// least-squares fit's, `squares` the weighted squares of the values.
inline float direction_factor(Emphasis emphasis, float error, float squares) {
  const bool counts = emphasis == Emphasis::direction || emphasis == Emphasis::both;
  if (!counts || !(error > 0) || !(squares > 0)) return 1.0f;
  return 2 / (1 + std::max(1 - error / squares, 0.5f));  // half: such a block is lost anyway
}

/// 1 / scale, or 0 for a scale too small to divide by.
inline float inverse(float scale) {
  return scale > 0x1p-120f || scale < -0x1p-120f ? 1 / scale : 0.0f;
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks
