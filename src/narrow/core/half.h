// SPDX-License-Identifier: Apache-2.0
// IEEE binary16 and bfloat16 as storage types. Conversions are plain integer code, so that every
// machine gives the same bits; rounding is half to even.
#pragma once

#include <cstdint>

namespace narrow {

struct Half {
  uint16_t bits = 0;
};
struct BFloat16 {
  uint16_t bits = 0;
};

float to_float(Half h);
float to_float(BFloat16 b);
/// Overflow gives infinity, NaN stays NaN, small values become subnormal.
Half to_half(float f);
BFloat16 to_bfloat16(float f);

}  // namespace narrow
