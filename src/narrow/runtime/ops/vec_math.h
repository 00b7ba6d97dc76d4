// SPDX-License-Identifier: Apache-2.0
// Elementary functions without branches and calls, which compilers turn into vector code. Float
// versions are accurate to a few units in the last place (see tests/runtime/ops_math_test.cpp);
// double versions call the C library. Float operators only: nothing integer is defined by them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace narrow::ops {

/// e^x. Below -87.33 (where the result would be subnormal) 0, above 88.72 infinity.
inline float vec_exp(float x) {
  // x = n ln 2 + r, |r| <= ln(2) / 2; adding 1.5 * 2^23 rounds to an integer in the low bits.
  constexpr float kRound = 12582912.0F;
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693359375F;  // exact with few bits: n * kLn2High has no error
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kSmallest = -87.3365F;
  constexpr float kLargest = 88.7228F;
  const float bounded = x < kSmallest ? kSmallest : (x > kLargest ? kLargest : x);
  const float shifted = bounded * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (bounded - n * kLn2High) - n * kLn2Low;
  // Taylor series to r^7: the rest is below 2^-25 of the result for |r| <= 0.3466.
  float p = 1.0F / 5040;
  p = p * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  // 2^n in two factors, as n = 128 has no float of its own.
  const auto exponent = static_cast<int32_t>(n);
  const int32_t half = exponent >> 1;
  const auto first = std::bit_cast<float>((half + 127) << 23);
  const auto second = std::bit_cast<float>((exponent - half + 127) << 23);
  float y = p * first * second;
  y = x < kSmallest ? 0.0F : y;
  y = x > kLargest ? std::numeric_limits<float>::infinity() : y;
  return x != x ? x : y;
}
inline double vec_exp(double x) {
  return std::exp(x);
}

inline float vec_sigmoid(float x) {
  return 1.0F / (1.0F + vec_exp(-x));
}
inline double vec_sigmoid(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

inline float vec_tanh(float x) {
  const float magnitude = x < 0 ? -x : x;
  const float large = 1.0F - 2.0F / (vec_exp(2 * magnitude) + 1.0F);
  // The form above cancels near 0; the odd series to x^11 does not.
  const float s = x * x;
  float p = -1382.0F / 155925;
  p = p * s + 62.0F / 2835;
  p = p * s - 17.0F / 315;
  p = p * s + 2.0F / 15;
  p = p * s - 1.0F / 3;
  const float small = x + x * s * p;
  const float signed_large = x < 0 ? -large : large;
  return magnitude < 0.3F ? small : (x != x ? x : signed_large);
}
inline double vec_tanh(double x) {
  return std::tanh(x);
}

inline float vec_erf(float x) {
  const float magnitude = x < 0 ? -x : x;
  // Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
  const float t = 1.0F / (1.0F + 0.3275911F * magnitude);
  float p = 1.061405429F;
  p = p * t - 1.453152027F;
  p = p * t + 1.421413741F;
  p = p * t - 0.284496736F;
  p = p * t + 0.254829592F;
  const float large = 1.0F - p * t * vec_exp(-magnitude * magnitude);
  // Taylor series to x^11 where relative accuracy matters.
  const float s = x * x;
  float q = -1.0F / 1320;
  q = q * s + 1.0F / 216;
  q = q * s - 1.0F / 42;
  q = q * s + 1.0F / 10;
  q = q * s - 1.0F / 3;
  const float small = 1.12837917F * (x + x * s * q);
  const float signed_large = x < 0 ? -large : large;
  return magnitude < 0.5F ? small : (x != x ? x : signed_large);
}
inline double vec_erf(double x) {
  return std::erf(x);
}

}  // namespace narrow::ops
