// SPDX-License-Identifier: Apache-2.0
// The vector functions against the C library in double: errors in units in the last place.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "narrow/runtime/ops/vec_math.h"

namespace narrow::ops {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

/// |actual - expected| in units of the last place of expected.
double ulps(float actual, double expected) {
  const float rounded = static_cast<float>(expected);
  const float next = std::nextafter(std::abs(rounded), kInfinity);
  return std::abs(static_cast<double>(actual) - expected) /
         static_cast<double>(next - std::abs(rounded));
}

template <class F, class G>
double worst_ulps(float from, float to, float step, const F& f, const G& g) {
  double worst = 0;
  for (float x = from; x <= to; x += step) {
    worst = std::max(worst, ulps(f(x), g(static_cast<double>(x))));
  }
  return worst;
}

TEST(VecMath, ExpIsWithinTwoUnits) {
  const double worst = worst_ulps(
      -87.0F, 88.7F, 0.0037F, [](float x) { return vec_exp(x); },
      [](double x) { return std::exp(x); });
  EXPECT_LT(worst, 2.0);
  EXPECT_GT(worst, 0.4) << "a measure that cannot fail";
}

TEST(VecMath, ExpAtTheEnds) {
  EXPECT_EQ(vec_exp(0.0F), 1.0F);
  EXPECT_EQ(vec_exp(-0.0F), 1.0F);
  EXPECT_EQ(vec_exp(89.0F), kInfinity);
  EXPECT_EQ(vec_exp(kInfinity), kInfinity);
  EXPECT_EQ(vec_exp(-kInfinity), 0.0F);
  EXPECT_EQ(vec_exp(-1000.0F), 0.0F);
  EXPECT_TRUE(std::isnan(vec_exp(kNan)));
}

TEST(VecMath, TanhAndErfAreWithinFiveUnits) {
  EXPECT_LT(worst_ulps(
                -10.0F, 10.0F, 0.00037F, [](float x) { return vec_tanh(x); },
                [](double x) { return std::tanh(x); }),
            5.0);
  EXPECT_LT(worst_ulps(
                -5.0F, 5.0F, 0.00037F, [](float x) { return vec_erf(x); },
                [](double x) { return std::erf(x); }),
            5.0);
  EXPECT_EQ(vec_tanh(0.0F), 0.0F);
  EXPECT_EQ(vec_tanh(kInfinity), 1.0F);
  EXPECT_EQ(vec_erf(-kInfinity), -1.0F);
  EXPECT_TRUE(std::isnan(vec_tanh(kNan)));
  EXPECT_TRUE(std::isnan(vec_erf(kNan)));
}

TEST(VecMath, SigmoidSaturates) {
  EXPECT_LT(worst_ulps(
                -80.0F, 80.0F, 0.003F, [](float x) { return vec_sigmoid(x); },
                [](double x) { return 1 / (1 + std::exp(-x)); }),
            4.0);
  EXPECT_EQ(vec_sigmoid(kInfinity), 1.0F);
  EXPECT_EQ(vec_sigmoid(-kInfinity), 0.0F);
  EXPECT_EQ(vec_sigmoid(200.0F), 1.0F);
}

}  // namespace
}  // namespace narrow::ops
