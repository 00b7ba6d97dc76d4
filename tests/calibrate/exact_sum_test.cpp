// SPDX-License-Identifier: Apache-2.0
#include "narrow/calibrate/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "narrow/core/rng.h"

namespace narrow {
namespace {

/// Finite floats of every exponent and both signs.
std::vector<float> wild_floats(size_t count) {
  Rng rng(12);
  std::vector<float> out;
  while (out.size() < count) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(rng.next()));
    if (std::isfinite(x)) out.push_back(x);
  }
  return out;
}

TEST(ExactSum, one_float_comes_back) {
  for (const float x : wild_floats(5000)) {
    ExactSum s;
    s.add(x);
    ASSERT_EQ(s.value(), static_cast<double>(x));
  }
  for (const float x : {0.0f, -0.0f, 1.0f, -1.0f, std::numeric_limits<float>::denorm_min(),
                        std::numeric_limits<float>::max(), -std::numeric_limits<float>::max()}) {
    ExactSum s;
    s.add(x);
    EXPECT_EQ(s.value(), static_cast<double>(x));
  }
}

TEST(ExactSum, integers_times_powers_of_two) {
  for (const int64_t v :
       {int64_t{1}, int64_t{-1}, int64_t{123456789}, -(int64_t{1} << 62),
        std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
    for (const int e : {-192, -191, -130, -129, -128, -64, -1, 0, 63, 64, 65, 200, 300}) {
      ExactSum s;
      s.add(v, e);
      EXPECT_EQ(s.value(), std::ldexp(static_cast<double>(v), e)) << v << " " << e;
    }
  }
}

TEST(ExactSum, cancels_exactly) {
  ExactSum s;
  s.add(1e30f);
  s.add(1e-30f);
  s.add(-1e30f);
  EXPECT_EQ(s.value(), static_cast<double>(1e-30f));
  s.add(-1e-30f);
  EXPECT_EQ(s, ExactSum());
}

TEST(ExactSum, does_not_depend_on_order_or_split) {
  std::vector<float> x = wild_floats(3000);
  ExactSum forward;
  for (const float v : x) forward.add(v);
  Rng rng(4);
  for (int trial = 0; trial < 5; ++trial) {
    rng.shuffle(std::span<float>(x));
    ExactSum parts[3];
    for (const float v : x) parts[rng.below(3)].add(v);
    ExactSum total;
    for (const ExactSum& p : parts) total.add(p);
    EXPECT_EQ(total, forward);
  }
}

TEST(ExactSum, rounds_once_to_nearest_even) {
  // 2^53 + 1 lies between two doubles, a tie; anything more goes up.
  ExactSum s;
  s.add((int64_t{1} << 53) + 1, 0);
  EXPECT_EQ(s.value(), 0x1p53);
  s.add(1, -192);
  EXPECT_EQ(s.value(), 0x1p53 + 2);
  s.add(-2, -192);
  EXPECT_EQ(s.value(), 0x1p53);
  ExactSum minus;
  minus.add(-((int64_t{1} << 53) + 3), 0);
  EXPECT_EQ(minus.value(), -(0x1p53 + 4));
}

TEST(ExactSum, text_round_trips) {
  ExactSum sum;
  EXPECT_EQ(sum.to_text(), "0");
  sum.add(-0.5f);
  EXPECT_EQ(sum.to_text(), "-0x8p-4");
  EXPECT_EQ(ExactSum::from_text("0x8p-4")->value(), 0.5);
  for (const float x : wild_floats(2000)) {
    sum.add(x);
    const auto back = ExactSum::from_text(sum.to_text());
    ASSERT_TRUE(back);
    ASSERT_EQ(*back, sum);
  }
  ExactSum ends;
  ends.add(1, -192);
  EXPECT_EQ(ExactSum::from_text(ends.to_text()), ends);
  ends.add(std::numeric_limits<int64_t>::min(), 300);
  EXPECT_EQ(ExactSum::from_text(ends.to_text()), ends);
}

TEST(ExactSum, refuses_other_text) {
  for (const char* text : {"",
                           "-",
                           "1",
                           "0x",
                           "0xp0",
                           "0x1",
                           "0x1p",
                           "0x1p1",
                           "0x1p-191",
                           "0x1p-196",
                           "0x1p384",
                           "0x8p380",
                           "0x1p99999999999",
                           "0xgp0",
                           "0x 1p0",
                           "0x+1p0",
                           "0x1p0 ",
                           "--0x1p0",
                           "0x1p-0x4",
                           "1e5",
                           "nan",
                           "0X1p0"}) {
    EXPECT_FALSE(ExactSum::from_text(text)) << text;
  }
  EXPECT_FALSE(ExactSum::from_text("0x" + std::string(145, '1') + "p-192"));
  EXPECT_TRUE(ExactSum::from_text("0x7" + std::string(143, 'f') + "p-192"));
  EXPECT_FALSE(ExactSum::from_text("0x8" + std::string(143, '0') + "p-192"));
}

}  // namespace
}  // namespace narrow
