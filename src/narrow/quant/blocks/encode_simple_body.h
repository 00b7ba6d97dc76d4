// SPDX-License-Identifier: Apache-2.0
// Encoders of the plain floating types and of the 32-value blocks with their own scale. Included
// once by the file for each instruction set.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "narrow/quant/blocks/encoders.h"
#include "narrow/quant/blocks/layout.h"
#include "narrow/quant/blocks/search.h"

namespace narrow::blocks {
namespace {

constexpr int kVectors = kSmall / 8;

/// One block brought to magnitude 1, with weights.
class SmallBlock {
 public:
  SmallBlock(const float* x, const float* importance, EncodeMethod method,
             Emphasis emphasis_of_errors)
      : emphasis(emphasis_of_errors), scaled_(x, kSmall, x_) {
    const bool rtn = method == EncodeMethod::rtn;
    error_weights(rtn ? nullptr : importance, x_, kSmall, rtn ? Emphasis::none : emphasis, w_);
    group.load(x_, w_);
  }
  Half store(float& scale) const { return scaled_.store(scale); }

  Emphasis emphasis;
  Group<kVectors> group;

 private:
  alignas(16) float x_[kSmall];
  alignas(16) float w_[kSmall];
  ScaledBlock scaled_;
};

/// A scale that a file can hold, and codes counted from the lowest level.
template <class Grid>
Half encode_symmetric(const SmallBlock& block, const Grid& grid, float extreme, float step,
                      EncodeMethod method, uint8_t* codes) {
  constexpr int kRounds = 2;
  const auto& g = block.group;
  float d = method == EncodeMethod::rtn ? symmetric_extreme(g, extreme)
                                        : search_symmetric(g, grid, extreme, step);
  Half stored = block.store(d);
  if (method == EncodeMethod::mse) {
    // The stored scale moved; codes and scale follow it while that helps.
    LevelSums sums;
    float error = error_at(g, grid, d, 0.0f, sums);
    for (int round = 0; round < kRounds && sums.ll > 0; ++round) {
      float next = sums.xl / sums.ll;
      const Half next_stored = block.store(next);
      if (next == d) break;
      const float next_error = error_at(g, grid, next, 0.0f, sums);
      if (!(next_error < error)) break;
      d = next;
      stored = next_stored;
      error = next_error;
    }
    d *= direction_factor(block.emphasis, error, g.sum_wxx);
    stored = block.store(d);
  }
  codes_at(g, grid, d, 0, codes);
  return stored;
}

struct ScaleOffset {
  Half d;
  Half m;
};

ScaleOffset encode_with_offset(const SmallBlock& block, float max_code, EncodeMethod method,
                               uint8_t* codes) {
  constexpr int kRounds = 3;
  const auto& g = block.group;
  const LinearGrid grid{0, max_code};
  OffsetFit fit = method == EncodeMethod::rtn ? offset_extremes(g, max_code, MinimumSign::any)
                                              : search_offset(g, max_code, MinimumSign::any);
  float d = fit.scale;
  float m = -fit.minimum;
  ScaleOffset stored{block.store(d), block.store(m)};
  if (method == EncodeMethod::mse) {
    LevelSums sums;
    float error = error_at(g, grid, d, m, sums);
    for (int round = 0; round < kRounds; ++round) {
      if (round > 0) solve(g, sums, MinimumSign::any, fit);
      float next_d = fit.scale;
      const Half half_d = block.store(next_d);
      float next_m = (g.sum_wx - next_d * sums.l) / g.sum_w;  // best for the stored scale
      const Half half_m = block.store(next_m);
      if (next_d == d && next_m == m) break;
      const float next_error = error_at(g, grid, next_d, next_m, sums);
      if (!(next_error < error)) break;
      error = next_error;
      d = next_d;
      m = next_m;
      stored = {half_d, half_m};
    }
    const float factor = direction_factor(block.emphasis, error, g.sum_wxx);
    d *= factor;
    m *= factor;
    stored = {block.store(d), block.store(m)};
  }
  codes_at(g, grid, d, m, codes);
  return stored;
}

void store_fifth_bits(const uint8_t* codes, uint8_t* h) {
  std::memset(h, 0, 4);
  for (int i = 0; i < kSmall; ++i) {
    h[i / 8] = static_cast<uint8_t>(h[i / 8] | ((codes[i] >> 4) & 1) << (i % 8));
  }
}

/// Calls block(SmallBlock, out) for each block.
template <class Block>
void for_each_block(const float* x, const float* importance, int64_t blocks, EncodeMethod method,
                    Emphasis emphasis, int block_bytes, uint8_t* out, const Block& block) {
  for (int64_t b = 0; b < blocks; ++b, x += kSmall, out += block_bytes) {
    block(SmallBlock(x, importance, method, emphasis), out);
    if (importance != nullptr) importance += kSmall;
  }
}

}  // namespace

inline namespace NARROW_BLOCKS_ISA {

NARROW_BLOCK_ENCODER(q4_0) {
  for_each_block(
      x, importance, blocks, method, emphasis, 18, out, [&](const SmallBlock& block, uint8_t* to) {
        uint8_t codes[kSmall];
        store_half(to, encode_symmetric(block, LinearGrid{-8, 7}, -8, 0.3f, method, codes));
        pack_nibbles16(codes, to + 2);
      });
}

NARROW_BLOCK_ENCODER(q4_1) {
  for_each_block(x, importance, blocks, method, emphasis, 20, out,
                 [&](const SmallBlock& block, uint8_t* to) {
                   uint8_t codes[kSmall];
                   const ScaleOffset s = encode_with_offset(block, 15, method, codes);
                   store_half(to, s.d);
                   store_half(to + 2, s.m);
                   pack_nibbles16(codes, to + 4);
                 });
}

NARROW_BLOCK_ENCODER(q5_0) {
  for_each_block(
      x, importance, blocks, method, emphasis, 22, out, [&](const SmallBlock& block, uint8_t* to) {
        uint8_t codes[kSmall];
        store_half(to, encode_symmetric(block, LinearGrid{-16, 15}, -16, 0.3f, method, codes));
        store_fifth_bits(codes, to + 2);
        pack_nibbles16(codes, to + 6);
      });
}

NARROW_BLOCK_ENCODER(q5_1) {
  for_each_block(x, importance, blocks, method, emphasis, 24, out,
                 [&](const SmallBlock& block, uint8_t* to) {
                   uint8_t codes[kSmall];
                   const ScaleOffset s = encode_with_offset(block, 31, method, codes);
                   store_half(to, s.d);
                   store_half(to + 2, s.m);
                   store_fifth_bits(codes, to + 4);
                   pack_nibbles16(codes, to + 8);
                 });
}

NARROW_BLOCK_ENCODER(q8_0) {
  for_each_block(
      x, importance, blocks, method, emphasis, 34, out, [&](const SmallBlock& block, uint8_t* to) {
        // Codes stay in [-127, 127]: products of pairs of -128 would not fit 16 bits.
        uint8_t codes[kSmall];
        store_half(to, encode_symmetric(block, LinearGrid{-127, 127}, 127, 0.5f, method, codes));
        for (int i = 0; i < kSmall; ++i) to[2 + i] = static_cast<uint8_t>(codes[i] - 127);
      });
}

NARROW_BLOCK_ENCODER(iq4_nl) {
  for_each_block(
      x, importance, blocks, method, emphasis, 18, out, [&](const SmallBlock& block, uint8_t* to) {
        uint8_t codes[kSmall];
        store_half(to, encode_symmetric(block, NonlinearGrid{}, -127, 4.0f, method, codes));
        pack_nibbles16(codes, to + 2);
      });
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks
