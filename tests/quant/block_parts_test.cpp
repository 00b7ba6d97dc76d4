// SPDX-License-Identifier: Apache-2.0
// Blocks taken apart give what decoding gives, bit for bit, whatever the bytes are.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/quant/blocks/block_parts.h"

namespace narrow {
namespace {

TEST(BlockParts, MakeUpTheDecodedValues) {
  for (const BlockForm& form : block_forms()) {
    const BlockCodec& c = codec(form.type);
    ASSERT_EQ(form.values, c.block_values);
    uint64_t state = 88172645463325252ull + static_cast<uint64_t>(form.type);
    for (int round = 0; round < 300; ++round) {
      std::vector<uint8_t> block(static_cast<size_t>(c.block_bytes));
      for (uint8_t& b : block) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b = static_cast<uint8_t>(state >> 40);
      }
      std::vector<float> decoded(static_cast<size_t>(c.block_values));
      c.decode(block.data(), 1, decoded.data());
      BlockParts parts;
      take_apart(form.type, block.data(), parts);
      for (int i = 0; i < form.values; ++i) {
        const int g = i / form.group;
        ASSERT_LT(parts.codes[i], 1 << form.bits);
        float value = scale_of(parts, g) * static_cast<float>(integer_of(form, parts.codes[i]));
        if (form.offset) value = value + offset_of(form, parts, g);
        const float expected = decoded[static_cast<size_t>(i)];
        if (std::isnan(value) && std::isnan(expected)) continue;
        ASSERT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(expected))
            << c.name << " value " << i << ": " << value << " for " << expected;
      }
    }
  }
}

TEST(BlockParts, TypesWithoutBlocksHaveNone) {
  for (const BlockType type : {BlockType::f32, BlockType::f16, BlockType::bf16}) {
    EXPECT_EQ(find_form(type), nullptr);
    BlockParts parts;
    EXPECT_THROW(take_apart(type, nullptr, parts), Error);
  }
  EXPECT_EQ(block_forms().size() + 3, block_codecs().size());
}

}  // namespace
}  // namespace narrow
