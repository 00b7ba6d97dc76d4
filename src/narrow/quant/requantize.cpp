// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/requantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "narrow/core/error.h"

namespace narrow {
namespace {

constexpr int64_t kInt32Min = std::numeric_limits<int32_t>::min();
constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

int32_t saturate(int64_t v) {
  return static_cast<int32_t>(std::clamp(v, kInt32Min, kInt32Max));
}

int32_t multiply_once(int32_t acc, FixedMultiplier m) {
  const int total = 31 - m.shift;  // 1..62, and |acc * multiplier| < 2^62: no overflow
  const int64_t half = int64_t{1} << (total - 1);
  return saturate((int64_t{acc} * m.multiplier + half) >> total);
}

int32_t multiply_twice(int32_t acc, FixedMultiplier m) {
  const int left = std::max(m.shift, 0);
  const int right = std::max(-m.shift, 0);
  const int64_t shifted = saturate(int64_t{acc} * (int64_t{1} << left));
  const int64_t product = shifted * m.multiplier;
  // Division truncates towards zero; the nudge makes it round to nearest, ties up.
  const int64_t nudge = product >= 0 ? int64_t{1} << 30 : 1 - (int64_t{1} << 30);
  const int64_t high = (product + nudge) / (int64_t{1} << 31);
  const int64_t mask = (int64_t{1} << right) - 1;
  const int64_t threshold = (mask >> 1) + (high < 0 ? 1 : 0);
  return saturate((high >> right) + ((high & mask) > threshold ? 1 : 0));
}

}  // namespace

float requant_multiplier(float s_x, float s_w, float s_y) {
  const double exact =
      static_cast<double>(s_x) * static_cast<double>(s_w) / static_cast<double>(s_y);
  if (!(std::fabs(exact) <= static_cast<double>(std::numeric_limits<float>::max()))) {
    throw Error(ErrorCode::numeric_failure,
                fmt::format("scales {} * {} / {} give no finite multiplier", s_x, s_w, s_y));
  }
  return static_cast<float>(exact);
}

FixedMultiplier fixed_multiplier(double m) {
  if (!(m >= 0) || std::isinf(m)) {
    throw Error(ErrorCode::numeric_failure,
                fmt::format("{} has no fixed-point form: it must be finite and not negative", m));
  }
  int exponent = 0;
  const double mantissa = std::frexp(m, &exponent);
  // Exact in double; adding a half and truncating is half away from zero for positive values.
  auto q = static_cast<int64_t>(mantissa * 2147483648.0 + 0.5);
  if (q == int64_t{1} << 31) {
    q /= 2;
    ++exponent;
  }
  if (q == 0 || exponent < -31) return {};
  if (exponent > 30) return {std::numeric_limits<int32_t>::max(), 30};
  return {static_cast<int32_t>(q), exponent};
}

double to_double(FixedMultiplier m) {
  return std::ldexp(static_cast<double>(m.multiplier), m.shift - 31);
}

int32_t multiply_fixed(int32_t acc, FixedMultiplier m, FixedRounding rounding) {
  return rounding == FixedRounding::once ? multiply_once(acc, m) : multiply_twice(acc, m);
}

int32_t requantize_fixed(int32_t acc, FixedMultiplier m, FixedRounding rounding, int32_t zero_point,
                         int32_t qmin, int32_t qmax) {
  const int64_t code = int64_t{multiply_fixed(acc, m, rounding)} + zero_point;
  return static_cast<int32_t>(std::clamp<int64_t>(code, qmin, qmax));
}

std::optional<int32_t> quantize_bias(float b, float s_x, float s_w) {
  const double t = static_cast<double>(b) / (static_cast<double>(s_x) * static_cast<double>(s_w));
  // A half past the limits still rounds into them only at the lower, even end.
  if (!(t >= -2147483648.5 && t < 2147483647.5)) return std::nullopt;
  return static_cast<int32_t>(round_half_even_int(t));
}

BiasCodes quantize_bias(const Tensor& bias, float s_x, const Tensor& s_w) {
  const auto values = bias.data<float>();
  const auto scales = s_w.data<float>();
  if (scales.size() != 1 && scales.size() != values.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} scales for a bias of {}", scales.size(), bias.describe()));
  }
  BiasCodes out{Tensor(DType::int32, bias.dims()), {}};
  const auto codes = out.codes.mutable_data<int32_t>();
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      throw Error(ErrorCode::numeric_failure, fmt::format("bias element {} is {}", i, values[i]));
    }
    const float scale = scales[scales.size() == 1 ? 0 : i];
    if (const auto code = quantize_bias(values[i], s_x, scale)) {
      codes[i] = *code;
    } else {
      codes[i] = saturate((values[i] > 0) == (s_x * scale > 0) ? kInt32Max : kInt32Min);
      out.overflowed.push_back(static_cast<int64_t>(i));
    }
  }
  return out;
}

}  // namespace narrow
