// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

namespace narrow {
namespace {

TEST(Half, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Half h{static_cast<uint16_t>(bits)};
    const float f = to_float(h);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(to_float(to_half(f))));
    } else {
      EXPECT_EQ(to_half(f).bits, h.bits);
    }
    const BFloat16 b{static_cast<uint16_t>(bits)};
    if (!std::isnan(to_float(b))) {
      EXPECT_EQ(to_bfloat16(to_float(b)).bits, b.bits);
    }
  }
}

TEST(Half, MidpointsGoToEven) {
  // Between every pair of neighbouring finite halves lies a binary32 midpoint.
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const float lo = to_float(Half{bits});
    const float hi = to_float(Half{static_cast<uint16_t>(bits + 1)});
    const float mid = lo + (hi - lo) / 2;
    EXPECT_EQ(to_half(mid).bits, bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(to_half(std::nextafter(mid, hi)).bits, bits + 1);
    EXPECT_EQ(to_half(std::nextafter(mid, lo)).bits, bits);
  }
}

TEST(Half, OverflowAndSpecials) {
  EXPECT_EQ(to_half(65504.0f).bits, 0x7bff);
  EXPECT_EQ(to_half(65519.0f).bits, 0x7bff);
  EXPECT_EQ(to_half(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_half(-INFINITY).bits, 0xfc00);
  EXPECT_EQ(to_bfloat16(3.4e38f).bits, 0x7f80);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace narrow
