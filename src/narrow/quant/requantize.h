// SPDX-License-Identifier: Apache-2.0
// From accumulators to codes: the one integer definition (a float32 multiplier, half to even), and
// the fixed-point forms that microcontroller runtimes have. Every kernel equals these bit for bit.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/quant/round.h"

namespace narrow {

/// float32(double(s_x) * double(s_w) / double(s_y)). Throws numeric_failure when that is not
/// finite.
float requant_multiplier(float s_x, float s_w, float s_y);
/// float32(double(s_x) / double(s_y)): from one grid to another.
inline float requant_multiplier(float s_x, float s_y) {
  return requant_multiplier(s_x, 1.0f, s_y);
}

/// clamp(round_half_even(t) + zero_point, qmin, qmax); the clamp happens in float, where no value
/// overflows: first min, then max, so that NaN gives qmax as minps and maxps have it.
inline int32_t round_to_code(float t, int32_t zero_point, int32_t qmin, int32_t qmax) {
  const auto lo = static_cast<float>(qmin - zero_point);
  const auto hi = static_cast<float>(qmax - zero_point);
  t = t < hi ? t : hi;
  t = t > lo ? t : lo;
  return round_half_even_int(t) + zero_point;
}

/// clamp(round_half_even(float(acc) * m) + zero_point, qmin, qmax).
inline int32_t requantize(int32_t acc, float m, int32_t zero_point, int32_t qmin, int32_t qmax) {
  return round_to_code(static_cast<float>(acc) * m, zero_point, qmin, qmax);
}

/// A real multiplier as multiplier * 2^(shift - 31), multiplier in [2^30, 2^31) or 0.
struct FixedMultiplier {
  int32_t multiplier = 0;
  int32_t shift = 0;  // [-31, 30]
  friend bool operator==(const FixedMultiplier&, const FixedMultiplier&) = default;
};

/// Nearest form (half away from zero), relative error at most 2^-31. Below 2^-32 it is 0, from 2^30
/// on the largest form. Throws numeric_failure for negative or non-finite m.
FixedMultiplier fixed_multiplier(double m);
double to_double(FixedMultiplier m);

/// How a fixed-point product is rounded.
///   once: one 64-bit product, ties up (TFLite single rounding, CMSIS-NN's switch of that name,
///         XNNPACK rndnu).
///   twice: doubling high product with ties up, then a right shift with ties away from zero
///         (gemmlowp, TFLite reference kernels, TFLM). A multiplier of 1 or more shifts acc left
///         first, which saturates.
enum class FixedRounding : uint8_t { once, twice };

/// acc * m rounded to an integer; saturates to int32.
int32_t multiply_fixed(int32_t acc, FixedMultiplier m, FixedRounding rounding);

/// clamp(multiply_fixed(acc, m) + zero_point, qmin, qmax).
int32_t requantize_fixed(int32_t acc, FixedMultiplier m, FixedRounding rounding, int32_t zero_point,
                         int32_t qmin, int32_t qmax);

/// round_half_even(b / (s_x * s_w)) in double; nullopt where that is no int32.
std::optional<int32_t> quantize_bias(float b, float s_x, float s_w);

struct BiasCodes {
  Tensor codes;                     // int32, shape of the bias
  std::vector<int64_t> overflowed;  // elements that do not fit: their codes are saturated
};
/// Every element of a float32 bias [C] with its channel's scale: s_w of one or C elements. Throws
/// numeric_failure for a bias that is not finite.
BiasCodes quantize_bias(const Tensor& bias, float s_x, const Tensor& s_w);

}  // namespace narrow
