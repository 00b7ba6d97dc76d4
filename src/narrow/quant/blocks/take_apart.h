// SPDX-License-Identifier: Apache-2.0
// Blocks taken apart (see block_parts.h). Here for the kernels that do so for every product: they
// include it with a NARROW_BLOCKS_ISA of their own (see lanes.h).
#pragma once

#include <cstdint>
#include <cstring>

#include "narrow/quant/blocks/block_parts.h"
#include "narrow/quant/blocks/layout.h"

namespace narrow::blocks {
inline namespace NARROW_BLOCKS_ISA {

inline constexpr BlockForm kForms[] = {
    // type, values, group, bits, zero, table, offset
    {BlockType::q4_0, 32, 32, 4, 8, false, false},
    {BlockType::q4_1, 32, 32, 4, 0, false, true},
    {BlockType::q5_0, 32, 32, 5, 16, false, false},
    {BlockType::q5_1, 32, 32, 5, 0, false, true},
    {BlockType::q8_0, 32, 32, 8, 128, false, false},
    {BlockType::iq4_nl, 32, 32, 4, 0, true, false},
    {BlockType::q2_k, 256, 16, 2, 0, false, true},
    {BlockType::q3_k, 256, 16, 3, 4, false, false},
    {BlockType::q4_k, 256, 32, 4, 0, false, true},
    {BlockType::q5_k, 256, 32, 5, 0, false, true},
    {BlockType::q6_k, 256, 16, 6, 32, false, false},
    {BlockType::iq4_xs, 256, 32, 4, 0, true, false},
};

/// Bit i of h[0..4) becomes bit 4 of code i; in loops that become vectors.
inline void add_fifth_bits(const uint8_t* h, uint8_t* codes) {
  static constexpr uint8_t kBits[kSmall] = {1,  2,   4,  8,  16,  32, 64, 128, 1,  2,  4,
                                            8,  16,  32, 64, 128, 1,  2,  4,   8,  16, 32,
                                            64, 128, 1,  2,  4,   8,  16, 32,  64, 128};
  uint8_t spread[kSmall];
  for (int j = 0; j < kSmall / 8; ++j) std::memset(spread + 8 * j, h[j], 8);
  for (int i = 0; i < kSmall; ++i) {
    codes[i] = static_cast<uint8_t>(codes[i] | ((spread[i] & kBits[i]) != 0 ? 16 : 0));
  }
}

/// Blocks of 32: d, then m where there is one, then the fifth bits where there are, then nibbles.
inline void take_small(const BlockForm& form, const uint8_t* block, BlockParts& p) {
  p.d = load_half(block).bits;
  p.m = 0;
  p.scales[0] = 1;
  p.offsets[0] = 1;
  block += 2;
  if (form.type == BlockType::q8_0) {
    for (int i = 0; i < kSmall; ++i) p.codes[i] = static_cast<uint8_t>(block[i] ^ 0x80);
    return;
  }
  if (form.offset) {
    p.m = load_half(block).bits;
    block += 2;
  }
  unpack_nibbles16(block + (form.bits == 5 ? 4 : 0), p.codes);
  if (form.bits == 5) add_fifth_bits(block, p.codes);
}

inline void take_q2_k(const uint8_t* b, BlockParts& p) {
  std::memset(p.codes, 0, sizeof(p.codes));
  unpack_pairs(b + 16, 0, p.codes);
  for (int g = 0; g < 16; ++g) {
    p.scales[g] = static_cast<int8_t>(b[g] & 15);
    p.offsets[g] = b[g] >> 4;
  }
  p.d = load_half(b + 80).bits;
  p.m = load_half(b + 82).bits;
}

inline void take_q3_k(const uint8_t* b, BlockParts& p) {
  std::memset(p.codes, 0, sizeof(p.codes));
  unpack_pairs(b + 32, 0, p.codes);
  unpack_bits(b, 2, p.codes);
  uint8_t s[16];
  unpack_scales16(b + 96, s);
  for (int g = 0; g < 16; ++g) p.scales[g] = static_cast<int8_t>(s[g] - 32);
  p.d = load_half(b + 108).bits;
}

/// q4_k, and q5_k with its fifth bits.
inline void take_scaled_offset(const BlockForm& form, const uint8_t* b, BlockParts& p) {
  p.d = load_half(b).bits;
  p.m = load_half(b + 2).bits;
  uint8_t s[8];
  unpack_scales_offsets8(b + 4, s, p.offsets);
  for (int g = 0; g < 8; ++g) p.scales[g] = static_cast<int8_t>(s[g]);
  const uint8_t* nibbles = b + (form.bits == 5 ? 48 : 16);
  for (int k = 0; k < 4; ++k) unpack_nibbles32(nibbles + 32 * k, p.codes + 64 * k);
  if (form.bits == 5) unpack_bits(b + 16, 4, p.codes);
}

inline void take_q6_k(const uint8_t* b, BlockParts& p) {
  unpack_nibbles_q6(b, p.codes);
  unpack_pairs(b + 128, 4, p.codes);
  std::memcpy(p.scales, b + 192, 16);
  p.d = load_half(b + 208).bits;
}

inline void take_iq4_xs(const uint8_t* b, BlockParts& p) {
  p.d = load_half(b).bits;
  const int high = load_half(b + 2).bits;
  for (int g = 0; g < 8; ++g) {
    const int s = ((b[4 + g / 2] >> (4 * (g % 2))) & 15) | ((high >> (2 * g)) & 3) << 4;
    p.scales[g] = static_cast<int8_t>(s - 32);
    unpack_nibbles16(b + 8 + 16 * g, p.codes + 32 * g);
  }
}

/// Of a type that stands in kForms.
inline void take_apart_as(const BlockForm& form, const uint8_t* block, BlockParts& parts) {
  parts.m = 0;
  switch (form.type) {
    case BlockType::q2_k:
      return take_q2_k(block, parts);
    case BlockType::q3_k:
      return take_q3_k(block, parts);
    case BlockType::q4_k:
    case BlockType::q5_k:
      return take_scaled_offset(form, block, parts);
    case BlockType::q6_k:
      return take_q6_k(block, parts);
    case BlockType::iq4_xs:
      return take_iq4_xs(block, parts);
    default:
      return take_small(form, block, parts);
  }
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks
