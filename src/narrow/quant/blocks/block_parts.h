// SPDX-License-Identifier: Apache-2.0
// A block taken apart into integers and scales, for those who multiply codes instead of floats.
// With the form of its type, value i of group g = i / group of a block is
//
//   scale(g) * integer(code i) + offset(g)
//
// with the same roundings as `decode`, bit for bit; offset(g) is left out where the form has none.
#pragma once

#include <cstdint>
#include <span>

#include "narrow/quant/blocks/block_codec.h"

namespace narrow {

struct BlockForm {
  BlockType type;
  int values;  // of a block: 32 or 256
  int group;   // values with one scale: 16 or 32
  int bits;    // of a code: codes are unsigned
  int zero;    // the code of integer 0; unused with a table
  bool table;  // integers are block_table()[code]
  bool offset;
};

/// Null for types of one value per block (f32, f16, bf16): they have no codes.
const BlockForm* find_form(BlockType type);
std::span<const BlockForm> block_forms();

/// The sixteen integers of iq4_nl and iq4_xs.
std::span<const int8_t, 16> block_table();

struct BlockParts {
  uint16_t d;           // binary16 bits
  uint16_t m;           // of the offsets: m or dmin; 0 where there are none
  int8_t scales[16];    // one per group; 1 in blocks of 32
  uint8_t offsets[16];  // likewise
  uint8_t codes[256];
};

void take_apart(BlockType type, const uint8_t* block, BlockParts& parts);

int integer_of(const BlockForm& form, uint8_t code);
float scale_of(const BlockParts& parts, int group);
/// m in blocks of 32, -(dmin * o) in those of 256.
float offset_of(const BlockForm& form, const BlockParts& parts, int group);

}  // namespace narrow
