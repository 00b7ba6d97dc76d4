// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/blocks/super_block.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace narrow::blocks {
namespace {

constexpr float kLargestHalf = 65504.0f;

float power_of_two(int exponent) {  // in [-126, 127]
  return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23);
}

}  // namespace

ScaledBlock::ScaledBlock(const float* x, int count, float* out) {
  uint32_t largest = 0;  // magnitudes order as their bits do
  for (int i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  }
  const int exponent = std::clamp(static_cast<int>(largest >> 23) - 127, -126, 126);
  up_ = power_of_two(exponent);
  down_ = power_of_two(-exponent);
  amax_ = std::bit_cast<float>(largest) * down_;
  for (int i = 0; i < count; ++i) out[i] = x[i] * down_;
}

Half ScaledBlock::store(float& scale) const {
  const float real = std::clamp(scale * up_, -kLargestHalf, kLargestHalf);
  const Half half = to_half(real);
  scale = to_float(half) * down_;
  return half;
}

void error_weights(const float* importance, const float* scaled_x, int count, Emphasis emphasis,
                   float* out) {
  if (importance == nullptr) {
    std::fill(out, out + count, 1.0f);
  } else {
    float largest = 0;
    for (int i = 0; i < count; ++i) largest = std::max(largest, importance[i]);
    const int exponent =
        static_cast<int>(std::bit_cast<uint32_t>(largest) >> 23) - 127;  // largest is not negative
    const float down = power_of_two(-std::clamp(exponent, -126, 126));
    float sum = 0;
    for (int i = 0; i < count; ++i) {
      out[i] = importance[i] * down;
      sum += out[i];
    }
    const float floor = sum > 0 ? sum / static_cast<float>(count) * 1e-3f : 1.0f;
    for (int i = 0; i < count; ++i) out[i] = std::max(out[i], floor);
  }
  if (emphasis != Emphasis::magnitude && emphasis != Emphasis::both) return;
  float squares = 0;
  for (int i = 0; i < count; ++i) squares += scaled_x[i] * scaled_x[i];
  squares /= static_cast<float>(count);
  if (!(squares > 0)) return;
  for (int i = 0; i < count; ++i) out[i] *= std::sqrt(squares + scaled_x[i] * scaled_x[i]);
}

}  // namespace narrow::blocks
