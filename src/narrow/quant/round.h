// SPDX-License-Identifier: Apache-2.0
// The one rounding: half to even, by exact arithmetic only, so that neither the rounding mode of
// the machine nor its instruction set matters.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace narrow {

/// For |x| < 2^31, not NaN. What is left after truncation moves the result when it exceeds a half,
/// or the float just below a half where the truncated integer is odd.
inline int32_t round_half_even_int(float x) {
  const auto whole = static_cast<int32_t>(x);
  const float rest = x - static_cast<float>(whole);  // exact: whole has no more bits than x
  const float limit = std::bit_cast<float>(0x3f000000 - (whole & 1));
  return whole + (rest > limit ? 1 : 0) - (rest < -limit ? 1 : 0);
}

/// For |x| < 2^63, not NaN.
inline int64_t round_half_even_int(double x) {
  const auto whole = static_cast<int64_t>(x);
  const double rest = x - static_cast<double>(whole);
  const auto limit = std::bit_cast<double>(0x3fe0000000000000 - (whole & 1));
  return whole + (rest > limit ? 1 : 0) - (rest < -limit ? 1 : 0);
}

/// x to the nearest integer for all x: NaN and infinities stay, -0.3 gives -0.
inline float round_half_even_float(float x) {
  constexpr float kAllIntegers = 8388608.0f;  // 2^23: every float from here on is an integer
  if (!(std::fabs(x) < kAllIntegers)) return x;
  return std::copysign(static_cast<float>(round_half_even_int(x)), x);
}

}  // namespace narrow
