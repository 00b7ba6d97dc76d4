// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/requantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

constexpr int32_t kMin = std::numeric_limits<int32_t>::min();
constexpr int32_t kMax = std::numeric_limits<int32_t>::max();

/// Multipliers spread over nine decades, powers of two among them.
std::vector<double> multipliers() {
  Rng rng(31);
  std::vector<double> out = {0.5, 0.25, 1.0, 0x1p-20, 0x1p-31, 2.0, 3.0, 0.75};
  while (out.size() < 64) out.push_back(std::pow(10.0, -8 + 9 * rng.uniform()));
  return out;
}

// What multiplier * 2^(shift - 31) * acc is, as a quotient of integers: numerator / 2^denominator.
struct Rational {
  __int128 numerator;
  int power;
};
Rational product(int32_t acc, FixedMultiplier m) {
  return {static_cast<__int128>(acc) * m.multiplier, 31 - m.shift};
}
__int128 floor_div(__int128 n, int power) {
  return n >> power;  // arithmetic: towards minus infinity
}
/// floor(x + 1/2): nearest, ties up.
__int128 nearest_ties_up(const Rational& r) {
  return floor_div(r.numerator + (static_cast<__int128>(1) << (r.power - 1)), r.power);
}
__int128 nearest_ties_even(const Rational& r) {
  const __int128 up = nearest_ties_up(r);
  const __int128 twice = (up << (r.power + 1)) - (static_cast<__int128>(1) << r.power);
  const bool tie = twice == 2 * r.numerator;
  return tie && (up & 1) != 0 ? up - 1 : up;
}
__int128 nearest_ties_away(__int128 n, int power) {
  if (power == 0) return n;
  const __int128 half = static_cast<__int128>(1) << (power - 1);
  return n >= 0 ? floor_div(n + half, power) : -floor_div(-n + half, power);
}
int32_t saturated(__int128 v) {
  return static_cast<int32_t>(std::clamp<__int128>(v, kMin, kMax));
}

TEST(RequantMultiplier, is_rounded_once) {
  EXPECT_EQ(requant_multiplier(0.1f, 0.2f, 0.3f),
            static_cast<float>(static_cast<double>(0.1f) * static_cast<double>(0.2f) /
                               static_cast<double>(0.3f)));
  // In float32 the product of these scales underflows.
  EXPECT_EQ(requant_multiplier(1e-25f, 1e-25f, 1e-25f), 1e-25f);
  EXPECT_EQ(requant_multiplier(0.5f, 0.25f), 2.0f);
  EXPECT_THROW(requant_multiplier(1, 1, 0), Error);
  EXPECT_THROW(requant_multiplier(1e30f, 1e30f, 1e-30f), Error);
  EXPECT_THROW(requant_multiplier(0, 1, 0), Error);
}

TEST(Requantize, equals_exact_arithmetic_on_the_rounded_product) {
  Rng rng(5);
  for (const double real : multipliers()) {
    const auto m = static_cast<float>(real);
    for (int i = 0; i < 3000; ++i) {
      const auto acc =
          static_cast<int32_t>(static_cast<int64_t>(rng.below(uint64_t{1} << 32)) + kMin);
      const float t = static_cast<float>(acc) * m;
      const auto zero_point = static_cast<int32_t>(rng.below(256));
      const double exact =
          std::clamp(std::nearbyint(static_cast<double>(t)) + zero_point, 0.0, 255.0);
      ASSERT_EQ(requantize(acc, m, zero_point, 0, 255), static_cast<int32_t>(exact))
          << acc << " * " << m;
    }
  }
}

TEST(Requantize, rounds_half_to_even_and_saturates) {
  EXPECT_EQ(requantize(1, 0.5f, 0, -128, 127), 0);
  EXPECT_EQ(requantize(3, 0.5f, 0, -128, 127), 2);
  EXPECT_EQ(requantize(-1, 0.5f, 0, -128, 127), 0);
  EXPECT_EQ(requantize(-3, 0.5f, 0, -128, 127), -2);
  EXPECT_EQ(requantize(3, 0.5f, 7, -128, 127), 9);  // before the zero_point: 1.5 -> 2
  EXPECT_EQ(requantize(kMax, 1e30f, 0, -128, 127), 127);
  EXPECT_EQ(requantize(kMin, 1e30f, 0, -128, 127), -128);
  EXPECT_EQ(requantize(kMin, 1e30f, 100, 3, 200), 3);
  EXPECT_EQ(requantize(kMax, 1e30f, 100, 3, 200), 200);
  EXPECT_EQ(requantize(5, -1.0f, 0, -128, 127), -5);
  EXPECT_EQ(requantize(0, std::numeric_limits<float>::infinity(), 0, -128, 127), 127);  // NaN
}

TEST(FixedMultiplier, is_normalised_and_near) {
  for (const double m : multipliers()) {
    const FixedMultiplier f = fixed_multiplier(m);
    EXPECT_GE(f.multiplier, 1 << 30);
    EXPECT_NEAR(to_double(f) / m, 1, 0x1p-31);
  }
  EXPECT_EQ(fixed_multiplier(0.5), (FixedMultiplier{1 << 30, 0}));
  EXPECT_EQ(fixed_multiplier(1.0), (FixedMultiplier{1 << 30, 1}));
  EXPECT_EQ(fixed_multiplier(std::nextafter(1.0, 0.0)), (FixedMultiplier{1 << 30, 1}));  // 2^31
  EXPECT_EQ(fixed_multiplier(0x1p-32), (FixedMultiplier{1 << 30, -31}));
  EXPECT_EQ(fixed_multiplier(0x1p-33), FixedMultiplier{});
  EXPECT_EQ(fixed_multiplier(0.0), FixedMultiplier{});
  EXPECT_EQ(fixed_multiplier(1e20), (FixedMultiplier{kMax, 30}));
  EXPECT_THROW(fixed_multiplier(-0.5), Error);
  EXPECT_THROW(fixed_multiplier(std::nan("")), Error);
  EXPECT_THROW(fixed_multiplier(std::numeric_limits<double>::infinity()), Error);
}

TEST(MultiplyFixed, once_equals_a_128_bit_reference) {
  for (const double real : multipliers()) {
    const FixedMultiplier m = fixed_multiplier(real);
    for (int32_t acc = -32768; acc <= 32768; ++acc) {
      ASSERT_EQ(multiply_fixed(acc, m, FixedRounding::once),
                saturated(nearest_ties_up(product(acc, m))))
          << acc << " * " << real;
    }
  }
}

TEST(MultiplyFixed, twice_equals_a_128_bit_reference) {
  for (const double real : multipliers()) {
    const FixedMultiplier m = fixed_multiplier(real);
    const int left = std::max(m.shift, 0);
    for (int32_t acc = -32768; acc <= 32768; ++acc) {
      const __int128 shifted = saturated(static_cast<__int128>(acc) << left);
      const __int128 high = nearest_ties_up({shifted * m.multiplier, 31});
      ASSERT_EQ(multiply_fixed(acc, m, FixedRounding::twice),
                saturated(nearest_ties_away(high, std::max(-m.shift, 0))))
          << acc << " * " << real;
    }
  }
}

TEST(MultiplyFixed, the_ends_of_int32) {
  for (const FixedRounding rounding : {FixedRounding::once, FixedRounding::twice}) {
    for (const int32_t acc : {kMin, kMin + 1, -1, 0, 1, kMax - 1, kMax}) {
      for (const double m : {0.5, 0.9, 0x1p-31, 0x1p-32, 1.0, 2.0, 1e9}) {
        if (m >= 1 && rounding == FixedRounding::twice) continue;  // saturates earlier
        const double exact = std::clamp(static_cast<double>(acc) * m, -2147483648.0, 2147483647.0);
        EXPECT_NEAR(multiply_fixed(acc, fixed_multiplier(m), rounding), exact, 1)
            << acc << " * " << m;
      }
      EXPECT_EQ(multiply_fixed(acc, {}, rounding), 0);
    }
  }
}

TEST(MultiplyFixed, the_roundings_differ_where_the_handbook_says) {
  // Ties: up, and away from zero after the second shift.
  const FixedMultiplier quarter = fixed_multiplier(0.25);
  EXPECT_EQ(multiply_fixed(2, quarter, FixedRounding::once), 1);
  EXPECT_EQ(multiply_fixed(-2, quarter, FixedRounding::once), 0);
  EXPECT_EQ(multiply_fixed(2, quarter, FixedRounding::twice), 1);
  EXPECT_EQ(multiply_fixed(-2, quarter, FixedRounding::twice), -1);
  // Two roundings: 0.25 * 5 = 1.25 is 2.5 -> 3 in the first, 1.5 -> 2 in the second.
  EXPECT_EQ(multiply_fixed(5, quarter, FixedRounding::once), 1);
  EXPECT_EQ(multiply_fixed(5, quarter, FixedRounding::twice), 2);
}

TEST(RequantizeFixed, differs_from_the_float_form_rarely_and_by_one) {
  Rng rng(77);
  int once_off = 0;
  int twice_off = 0;
  constexpr int kTrials = 200000;
  for (int i = 0; i < kTrials; ++i) {
    const double m = 1e-4 + 0.01 * rng.uniform();
    const auto acc = static_cast<int32_t>(rng.below(40000)) - 20000;
    const FixedMultiplier f = fixed_multiplier(m);
    const int32_t reference = requantize(acc, static_cast<float>(m), 3, -128, 127);
    const int32_t once = requantize_fixed(acc, f, FixedRounding::once, 3, -128, 127);
    const int32_t twice = requantize_fixed(acc, f, FixedRounding::twice, 3, -128, 127);
    ASSERT_LE(std::abs(once - reference), 1);
    ASSERT_LE(std::abs(twice - reference), 1);
    once_off += once != reference ? 1 : 0;
    twice_off += twice != reference ? 1 : 0;
  }
  EXPECT_LT(once_off, kTrials / 10000);
  EXPECT_GT(twice_off, once_off);
  EXPECT_LT(twice_off, kTrials / 50);
}

TEST(RequantizeFloat, equals_exact_half_even_below_2_24) {
  // acc is exact in float and m a power of two times a small integer: the product is exact too.
  for (const FixedMultiplier m :
       {fixed_multiplier(0.5), fixed_multiplier(0.75), fixed_multiplier(0x1p-7)}) {
    const auto real = static_cast<float>(to_double(m));
    for (int32_t acc = -40000; acc <= 40000; ++acc) {
      ASSERT_EQ(requantize(acc, real, 0, kMin / 2, kMax / 2),
                static_cast<int32_t>(nearest_ties_even(product(acc, m))));
    }
  }
}

TEST(QuantizeBias, rounds_in_double) {
  EXPECT_EQ(quantize_bias(1.0f, 0.5f, 0.25f), 8);
  EXPECT_EQ(quantize_bias(0.0625f, 0.5f, 0.25f), 0);  // 0.5
  EXPECT_EQ(quantize_bias(0.1875f, 0.5f, 0.25f), 2);  // 1.5
  EXPECT_EQ(quantize_bias(-0.1875f, 0.5f, 0.25f), -2);
  // s_x * s_w underflows in float32, the quotient does not.
  EXPECT_EQ(quantize_bias(3e-40f, 1e-25f, 1e-25f), std::nullopt);
  EXPECT_EQ(quantize_bias(0.0f, 1e-25f, 1e-25f), 0);
  EXPECT_EQ(quantize_bias(1.0f, 1e-5f, 1e-5f), std::nullopt);
  EXPECT_EQ(quantize_bias(-2147483648.0f, 1, 1), kMin);
  EXPECT_EQ(quantize_bias(2147483648.0f, 1, 1), std::nullopt);
  EXPECT_EQ(quantize_bias(std::nanf(""), 1, 1), std::nullopt);
}

TEST(QuantizeBias, names_the_channels_that_do_not_fit) {
  const Tensor bias = Tensor::vector<float>({1, -1e9f, 2, 1e9f});
  const Tensor scales = Tensor::vector<float>({1, 1e-3f, 0.5f, 1e-3f});
  const BiasCodes out = quantize_bias(bias, 0.1f, scales);
  EXPECT_EQ(out.codes.to_ints(), (std::vector<int64_t>{10, kMin, 40, kMax}));
  EXPECT_EQ(out.overflowed, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(
      quantize_bias(Tensor::vector<float>({1, 2}), 0.5f, Tensor::scalar(0.5f)).codes.to_ints(),
      (std::vector<int64_t>{4, 8}));
  EXPECT_THROW(quantize_bias(bias, 0.1f, Tensor::vector<float>({1, 2})), Error);
  EXPECT_THROW(quantize_bias(Tensor::vector<float>({std::nanf("")}), 1, Tensor::scalar(1.0f)),
               Error);
}

}  // namespace
}  // namespace narrow
