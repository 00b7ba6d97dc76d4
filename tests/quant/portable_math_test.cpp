// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/portable_math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "narrow/core/hash.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Arguments over [low, high], evenly and crowded towards zero, with both ends.
std::vector<double> arguments(double low, double high) {
  Rng rng(17);
  std::vector<double> x = {low, high};
  for (int i = 0; i < 20000; ++i) {
    x.push_back(low + (high - low) * rng.uniform());
    const double small = std::ldexp(rng.uniform() - 0.5, -static_cast<int>(rng.below(60)));
    if (small >= low && small <= high) x.push_back(small);
  }
  return x;
}

using Function = std::function<double(double)>;

void expect_near_libm(const char* name, const Function& ours, const Function& libm, double low,
                      double high, double relative, double absolute = 0) {
  for (const double x : arguments(low, high)) {
    const double expected = libm(x);
    const double got = ours(x);
    const double allowed = relative * std::fabs(expected) + absolute;
    ASSERT_LE(std::fabs(got - expected), allowed) << name << "(" << x << ")";
  }
}

constexpr double kFewUlps = 1e-15;  // about 4.5 units in the last place

TEST(PortableMath, is_near_libm) {
  const auto std_exp = [](double x) { return std::exp(x); };
  const auto std_expm1 = [](double x) { return std::expm1(x); };
  const auto std_log = [](double x) { return std::log(x); };
  const auto std_log1p = [](double x) { return std::log1p(x); };
  const auto std_tanh = [](double x) { return std::tanh(x); };
  const auto std_erf = [](double x) { return std::erf(x); };
  const auto std_erfc = [](double x) { return std::erfc(x); };
  expect_near_libm("exp", portable_exp, std_exp, -708, 709, kFewUlps);
  expect_near_libm("expm1", portable_expm1, std_expm1, -60, 700, 2 * kFewUlps);
  expect_near_libm("expm1", portable_expm1, std_expm1, -1, 1, 2 * kFewUlps);
  expect_near_libm("log", portable_log, std_log, 1e-300, 1e300, kFewUlps);
  expect_near_libm("log", portable_log, std_log, 0.5, 2, kFewUlps);
  expect_near_libm("log", portable_log, std_log, 1e-3, 1e3, kFewUlps);
  expect_near_libm("log1p", portable_log1p, std_log1p, -0.999, 10, 2 * kFewUlps);
  expect_near_libm("tanh", portable_tanh, std_tanh, -25, 25, 2 * kFewUlps);
  expect_near_libm("erf", portable_erf, std_erf, -7, 7, 3 * kFewUlps);
  expect_near_libm("erfc", portable_erfc, std_erfc, 1, 26, 2 * kFewUlps);
  expect_near_libm("erfc", portable_erfc, std_erfc, -8, 1, 5 * kFewUlps);
  expect_near_libm(
      "sigmoid", portable_sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, -700, 700,
      3 * kFewUlps);
  expect_near_libm(
      "softplus", portable_softplus,
      [](double x) { return std::fmax(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }, -700, 700,
      3 * kFewUlps);
}

TEST(PortableMath, pow_is_near_libm) {
  for (const double y : {2.0, 3.0, -1.0, -2.0, 0.5, 1.5, -0.5, 0.3333, 2.2, 7.0, 65.0, -70.0}) {
    expect_near_libm(
        "pow", [y](double x) { return portable_pow(x, y); },
        [y](double x) { return std::pow(x, y); }, 0.01, 50, 1e-13);
  }
  for (const double y : {2.0, 3.0, -1.0, -3.0, 64.0, 65.0, 101.0}) {
    expect_near_libm(
        "pow", [y](double x) { return portable_pow(x, y); },
        [y](double x) { return std::pow(x, y); }, -3, -0.5, 1e-13);
  }
}

TEST(PortableMath, pow_has_the_special_cases_of_c) {
  const std::vector<double> values = {0.0,  -0.0,  1,    -1,  0.5, -0.5,  2,      -2,    3,
                                      kInf, -kInf, kNaN, 100, 101, 1e300, -1e300, 0x1p60};
  for (const double x : values) {
    for (const double y : values) {
      const double expected = std::pow(x, y);
      const double got = portable_pow(x, y);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(got)) << x << " ^ " << y;
      } else if (expected == 0 || std::isinf(expected)) {
        EXPECT_EQ(got, expected) << x << " ^ " << y;
        EXPECT_EQ(std::signbit(got), std::signbit(expected)) << x << " ^ " << y;
      } else {
        EXPECT_NEAR(got / expected, 1, 1e-13) << x << " ^ " << y;
      }
    }
  }
}

TEST(PortableMath, special_arguments) {
  EXPECT_EQ(portable_exp(0), 1);
  EXPECT_EQ(portable_exp(-0.0), 1);
  EXPECT_EQ(portable_exp(kInf), kInf);
  EXPECT_EQ(portable_exp(-kInf), 0);
  EXPECT_EQ(portable_exp(709.8), kInf);
  EXPECT_EQ(portable_exp(-745.2), 0);
  EXPECT_EQ(portable_exp(-745), std::numeric_limits<double>::denorm_min());
  EXPECT_NEAR(portable_exp(-740) / std::exp(-740), 1, 1e-2);  // a subnormal of few bits
  EXPECT_EQ(portable_expm1(-kInf), -1);
  EXPECT_EQ(portable_expm1(0), 0);
  EXPECT_EQ(portable_expm1(1e-300), 1e-300);
  EXPECT_EQ(portable_log(1), 0);
  EXPECT_EQ(portable_log(0), -kInf);
  EXPECT_EQ(portable_log(-0.0), -kInf);
  EXPECT_EQ(portable_log(kInf), kInf);
  EXPECT_TRUE(std::isnan(portable_log(-1)));
  EXPECT_NEAR(portable_log(5e-324), std::log(5e-324), 1e-12);
  EXPECT_EQ(portable_log1p(-1), -kInf);
  EXPECT_EQ(portable_log1p(1e-300), 1e-300);
  EXPECT_TRUE(std::isnan(portable_log1p(-2)));
  EXPECT_EQ(portable_log1p(kInf), kInf);
  EXPECT_EQ(portable_tanh(kInf), 1);
  EXPECT_EQ(portable_tanh(-kInf), -1);
  EXPECT_TRUE(std::signbit(portable_tanh(-0.0)));
  EXPECT_EQ(portable_erf(kInf), 1);
  EXPECT_EQ(portable_erf(-kInf), -1);
  EXPECT_EQ(portable_erf(0), 0);
  EXPECT_EQ(portable_erfc(kInf), 0);
  EXPECT_EQ(portable_erfc(-kInf), 2);
  EXPECT_EQ(portable_erfc(0), 1);
  EXPECT_EQ(portable_sigmoid(0), 0.5);
  EXPECT_EQ(portable_sigmoid(kInf), 1);
  EXPECT_EQ(portable_sigmoid(-kInf), 0);
  EXPECT_EQ(portable_softplus(kInf), kInf);
  EXPECT_EQ(portable_softplus(-kInf), 0);
  EXPECT_NEAR(portable_softplus(0), std::log(2.0), 1e-16);
}

TEST(PortableMath, nan_stays_nan) {
  for (const Function& f :
       {Function(portable_exp), Function(portable_expm1), Function(portable_log),
        Function(portable_log1p), Function(portable_tanh), Function(portable_erf),
        Function(portable_erfc), Function(portable_sigmoid), Function(portable_softplus)}) {
    EXPECT_TRUE(std::isnan(f(kNaN)));
  }
}

TEST(PortableMath, is_monotone_and_symmetric) {
  double before_exp = 0;
  double before_tanh = -1;
  double before_erf = -1;
  double before_sigmoid = 0;
  for (int i = -40000; i <= 40000; ++i) {
    const double x = i * 1e-4;
    EXPECT_GE(portable_exp(x), before_exp * (1 - kFewUlps));
    EXPECT_GE(portable_tanh(x), before_tanh - kFewUlps);
    EXPECT_GE(portable_erf(x), before_erf - kFewUlps);
    EXPECT_GE(portable_sigmoid(x), before_sigmoid - kFewUlps);
    EXPECT_EQ(portable_tanh(-x), -portable_tanh(x));
    EXPECT_EQ(portable_erf(-x), -portable_erf(x));
    before_exp = portable_exp(x);
    before_tanh = portable_tanh(x);
    before_erf = portable_erf(x);
    before_sigmoid = portable_sigmoid(x);
  }
}

TEST(PortableMath, has_the_same_bits_on_every_machine) {
  // The hash of many results, from an x86-64 machine. Another value means that a build contracts
  // multiply and add, or uses wider registers: tables would differ.
  Hash64 hash;
  for (int i = -3000; i <= 3000; ++i) {
    const double x = i / 100.0 + 1.0 / 3;
    for (const double v :
         {portable_exp(x), portable_expm1(x), portable_log(std::fabs(x)), portable_tanh(x),
          portable_erf(x / 5), portable_erfc(x / 2), portable_sigmoid(x), portable_softplus(x),
          portable_pow(std::fabs(x), 0.3), portable_log1p(std::fabs(x))}) {
      hash.add_number(std::bit_cast<int64_t>(v));
    }
  }
  EXPECT_EQ(hash.hex(), "e6d5e6e9fb3f8336");
}

}  // namespace
}  // namespace narrow
