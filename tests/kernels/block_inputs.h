// SPDX-License-Identifier: Apache-2.0
// Weights in blocks and activations for tests of their products.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/kernel_inputs.h"
#include "narrow/core/half.h"
#include "narrow/quant/blocks/block_codec.h"

namespace narrow::testing {

/// Where the 16-bit floats of a block stand.
inline std::vector<int> half_places(BlockType type) {
  switch (type) {
    case BlockType::q4_1:
    case BlockType::q5_1:
    case BlockType::q4_k:
    case BlockType::q5_k:
      return {0, 2};
    case BlockType::q2_k:
      return {80, 82};
    case BlockType::q3_k:
      return {108};
    case BlockType::q6_k:
      return {208};
    default:
      return {0};
  }
}

/// Bytes of every kind but for the scales, which are finite, of both signs and now and then 0.
inline std::vector<std::byte> weights(BlockType type, int64_t n, int64_t k, Fill how,
                                      uint64_t seed) {
  std::vector<std::byte> bytes(static_cast<size_t>(n) * row_bytes(type, k));
  fill(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size(), how, 0, 255, seed);
  Noise noise(seed + 1);
  for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(codec(type).block_bytes)) {
    for (const int place : half_places(type)) {
      const int32_t step = noise.in(-40, 40);
      const Half h = to_half(static_cast<float>(step) * 0.0037F);
      bytes[at + static_cast<size_t>(place)] = static_cast<std::byte>(h.bits & 0xff);
      bytes[at + static_cast<size_t>(place) + 1] = static_cast<std::byte>(h.bits >> 8);
    }
  }
  return bytes;
}

inline std::vector<float> activations(int64_t count, Fill how, uint64_t seed) {
  std::vector<int32_t> codes(static_cast<size_t>(count));
  fill(codes.data(), codes.size(), how, -1000, 1000, seed);
  std::vector<float> x;
  Noise noise(seed + 2);
  for (size_t i = 0; i < codes.size(); ++i) {
    // Blocks of quite different sizes, and some of zeros.
    const float size = (i / 32) % 5 == 3 ? 0.0F : std::ldexp(1.0F, static_cast<int>(i / 32) % 7);
    x.push_back(static_cast<float>(codes[i]) * size / 777.0F);
  }
  return x;
}

}  // namespace narrow::testing
