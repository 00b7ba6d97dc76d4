// SPDX-License-Identifier: Apache-2.0
// The one rounding: half to even, by exact arithmetic only, so that neither the rounding mode of
// the machine nor its instruction set matters.
#pragma once

#include <cmath>
#include <cstdint>

namespace narrow {

/// For |x| < 2^31, not NaN.
inline int32_t round_half_even_int(float x) {
  const auto whole = static_cast<int32_t>(x);
  const float rest = x - static_cast<float>(whole);  // exact: whole has no more bits than x
  const int32_t odd = whole & 1;
  const int32_t up = (rest > 0.5f ? 1 : 0) | ((rest == 0.5f ? 1 : 0) & odd);
  const int32_t down = (rest < -0.5f ? 1 : 0) | ((rest == -0.5f ? 1 : 0) & odd);
  return whole + up - down;
}

/// For |x| < 2^63, not NaN.
inline int64_t round_half_even_int(double x) {
  const auto whole = static_cast<int64_t>(x);
  const double rest = x - static_cast<double>(whole);
  const int64_t odd = whole & 1;
  const int64_t up = (rest > 0.5 ? 1 : 0) | ((rest == 0.5 ? 1 : 0) & odd);
  const int64_t down = (rest < -0.5 ? 1 : 0) | ((rest == -0.5 ? 1 : 0) & odd);
  return whole + up - down;
}

/// x to the nearest integer for all x: NaN and infinities stay, -0.3 gives -0.
inline float round_half_even_float(float x) {
  constexpr float kAllIntegers = 8388608.0f;  // 2^23: every float from here on is an integer
  if (!(std::fabs(x) < kAllIntegers)) return x;
  return std::copysign(static_cast<float>(round_half_even_int(x)), x);
}

}  // namespace narrow
