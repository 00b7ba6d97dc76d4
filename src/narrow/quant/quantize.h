// SPDX-License-Identifier: Apache-2.0
// The quantization mathematics: ranges to parameters, real values to codes and back. Scalar code:
// the specification that every kernel is compared with. Half-to-even rounding, clamp in float
// before the conversion, NaN gives zero_point (offset: code qmin), infinities saturate.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "narrow/quant/scheme.h"

namespace narrow {

/// x to the nearest integer, ties to even, as float; correct in every rounding mode and for all x.
float round_half_even(float x);

struct ScaleZeroPoint {
  float scale = 1;
  int32_t zero_point = 0;
  float offset = 0;  // Symmetry::offset only
};

/// Parameters of one grid from a real range, which is widened to contain 0 (not for offset).
/// All-zero ranges give scale 1; a step too small for the scale's type becomes its smallest value.
/// Symmetric: scale = amax / qmax, with the middle code 2^(bits-1) as zero_point when unsigned.
/// Offset: rmin has the code qmin; the offset itself stays float32. The scale is rounded to
/// scheme.scale_type (power_of_two: up, so that the range stays inside) before the zero_point is
/// computed. Throws numeric_failure for NaN or inf.
ScaleZeroPoint choose_params(float rmin, float rmax, const Scheme& scheme);

/// One value; the codes are in [qmin, qmax].
int32_t quantize_value(float x, const ScaleZeroPoint& p, const Scheme& scheme);
float dequantize_value(int32_t code, const ScaleZeroPoint& p, const Scheme& scheme);

/// Min-max parameters for each unit of the scheme's granularity. x: float32.
QuantParams minmax_params(const Tensor& x, const Scheme& scheme);
/// Parameters from explicit ranges, one per unit in row-major order of QuantParams' scale shape.
QuantParams params_from_ranges(std::span<const float> rmin, std::span<const float> rmax, Dims shape,
                               const Scheme& scheme);
/// Codes in scheme.storage(). Throws numeric_failure naming the first NaN or inf when
/// `policy` says so (weights); activations map them by the rule above.
enum class NonFinite : uint8_t { refuse, map };
Tensor quantize(const Tensor& x, const QuantParams& params, NonFinite policy = NonFinite::refuse);
Tensor dequantize(const Tensor& codes, const QuantParams& params);
/// dequantize(quantize(x)); refuses what is not finite.
Tensor fake_quant(const Tensor& x, const QuantParams& params);

/// The stored form of a positive step: never 0. Throws numeric_failure where it would be infinite.
float store_scale(float step, ScaleType type);

/// For the element at a row-major index of a tensor of `dims`: which scale applies.
int64_t unit_of(int64_t element, std::span<const int64_t> dims, const Scheme& scheme);
/// Shape of the scale tensor for a tensor of `dims`.
Dims scale_dims(std::span<const int64_t> dims, const Scheme& scheme);

}  // namespace narrow
