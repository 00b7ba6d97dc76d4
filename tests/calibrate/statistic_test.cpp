// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "narrow/calibrate/observer.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

enum class Kind { normal, relu, heavy_tail, positive, wild, all_zero };

std::vector<float> data_of(Kind kind, size_t count, uint64_t seed = 1) {
  Rng rng(seed);
  std::vector<float> x(count);
  for (float& v : x) {
    const auto g = static_cast<float>(rng.normal());
    switch (kind) {
      case Kind::normal:
        v = g;
        break;
      case Kind::relu:
        v = std::max(g, 0.0f);
        break;
      case Kind::heavy_tail:
        v = g * std::exp(3 * static_cast<float>(rng.normal()));
        break;
      case Kind::positive:
        v = 5 + std::fabs(g);
        break;
      case Kind::wild:  // every bit pattern: all exponents, NaN and infinities
        v = std::bit_cast<float>(static_cast<uint32_t>(rng.next()));
        break;
      case Kind::all_zero:
        v = rng.below(2) == 0 ? 0.0f : -0.0f;
        break;
    }
  }
  return x;
}

const std::vector<Kind> kKinds = {Kind::normal,   Kind::relu, Kind::heavy_tail,
                                  Kind::positive, Kind::wild, Kind::all_zero};

Statistic observed(std::span<const float> x, Detail detail = Detail::histogram) {
  Statistic s(detail);
  s.observe(x);
  s.end_sample();
  return s;
}

TEST(Statistic, equals_a_plain_count) {
  for (const Kind kind : kKinds) {
    // Longer than the blocks inside, and no multiple of them.
    const std::vector<float> x = data_of(kind, 70001);
    const Statistic s = observed(x);
    Statistic expected;
    expected.min = kInf;
    expected.max = -kInf;
    for (const float v : x) {
      if (!std::isfinite(v)) {
        ++expected.non_finite;
        continue;
      }
      ++expected.count;
      expected.zeros += v == 0 ? 1 : 0;
      expected.min = std::min(expected.min, v);
      expected.max = std::max(expected.max, v);
      expected.sum.add(v);
      expected.sum_abs.add(std::fabs(v));
      const float amax = std::fabs(v);
      int e = 0;
      std::frexp(amax, &e);
      if (amax > 0) expected.exponent = std::max(expected.exponent, e);
    }
    EXPECT_EQ(s.count, expected.count);
    EXPECT_EQ(s.zeros, expected.zeros);
    EXPECT_EQ(s.non_finite, expected.non_finite);
    EXPECT_EQ(s.min, expected.min);
    EXPECT_EQ(s.max, expected.max);
    EXPECT_EQ(s.sum, expected.sum);
    EXPECT_EQ(s.sum_abs, expected.sum_abs);
    ASSERT_EQ(s.exponent, expected.exponent);
    std::vector<uint64_t> negative(Statistic::kBins);
    std::vector<uint64_t> positive(Statistic::kBins);
    for (const float v : x) {
      if (!std::isfinite(v) || v == 0) continue;
      const double place = std::ldexp(std::fabs(static_cast<double>(v)), 11 - s.exponent);
      ++(v < 0 ? negative : positive)[static_cast<size_t>(place)];
    }
    const auto total = [](const auto& b) {
      return std::accumulate(b.begin(), b.end(), uint64_t{0});
    };
    EXPECT_EQ(s.negative, total(negative) > 0 ? negative : std::vector<uint64_t>());
    EXPECT_EQ(s.positive, total(positive) > 0 ? positive : std::vector<uint64_t>());
  }
}

TEST(Statistic, moments_equal_those_in_double) {
  for (const Kind kind : {Kind::normal, Kind::relu, Kind::heavy_tail, Kind::positive}) {
    const std::vector<float> x = data_of(kind, 50000);
    const Statistic s = observed(x);
    double sum = 0;
    double sum_abs = 0;
    double squares = 0;
    for (const float v : x) {
      sum += static_cast<double>(v);
      sum_abs += std::fabs(static_cast<double>(v));
      squares += static_cast<double>(v) * static_cast<double>(v);
    }
    const auto n = static_cast<double>(x.size());
    EXPECT_NEAR(s.mean(), sum / n, 1e-12 * sum_abs / n);
    EXPECT_NEAR(s.mean_abs(), sum_abs / n, 1e-12 * sum_abs / n);
    EXPECT_NEAR(s.rms(), std::sqrt(squares / n), 1e-12 * std::sqrt(squares / n));
    EXPECT_NEAR(s.stddev(), std::sqrt(squares / n - sum / n * (sum / n)), 1e-9 * s.rms());
  }
  const Statistic empty;
  EXPECT_EQ(empty.mean(), 0);
  EXPECT_EQ(empty.mean_abs(), 0);
  EXPECT_EQ(empty.rms(), 0);
  EXPECT_EQ(empty.stddev(), 0);
}

TEST(Statistic, order_and_split_give_the_same_bytes) {
  for (const Kind kind : kKinds) {
    for (const Detail detail : {Detail::range, Detail::histogram}) {
      std::vector<float> x = data_of(kind, 40000);
      Statistic whole(detail);
      whole.observe(x);
      Statistics file;
      file.values["x"] = whole;
      const std::string bytes = statistics_to_json(file);
      Rng rng(99);
      for (int trial = 0; trial < 4; ++trial) {
        rng.shuffle(std::span<float>(x));
        std::vector<Statistic> parts(5, Statistic(detail));
        for (size_t at = 0; at < x.size();) {
          const size_t n = std::min<size_t>(x.size() - at, 1 + rng.below(9000));
          parts[rng.below(parts.size())].observe({x.data() + at, n});
          at += n;
        }
        // ((0 + 1) + 2) ... and 4 + (3 + ...): any tree.
        Statistic left(detail);
        for (const Statistic& p : parts) left.merge(p);
        Statistic right(detail);
        for (size_t i = parts.size(); i-- > 0;) {
          Statistic sum = parts[i];
          sum.merge(right);
          right = sum;
        }
        EXPECT_EQ(left, whole);
        EXPECT_EQ(right, whole);
        file.values["x"] = left;
        EXPECT_EQ(statistics_to_json(file), bytes);
      }
    }
  }
}

TEST(Statistic, a_later_outlier_keeps_the_counts) {
  Statistic s;
  s.observe(data_of(Kind::normal, 10000));
  const std::vector<float> outlier = {-1e6f};
  s.observe(outlier);
  EXPECT_EQ(s.exponent, 20);
  EXPECT_EQ(s.negative.back() + s.negative[1953], 1u);  // 1e6 / (2^20 / 2048) = 1953.1
  EXPECT_EQ(std::accumulate(s.positive.begin(), s.positive.end(), uint64_t{0}), s.positive[0]);
  EXPECT_EQ(s.negative[0] + s.positive[0], 10000u);
}

TEST(Statistic, leaves_out_what_is_not_finite) {
  Statistic s;
  const std::vector<float> x = {kNaN, 1, kInf, -2, -kInf, 0, -kNaN};
  s.observe(x);
  EXPECT_EQ(s.count, 3);
  EXPECT_EQ(s.zeros, 1);
  EXPECT_EQ(s.non_finite, 4);
  EXPECT_EQ(s.min, -2);
  EXPECT_EQ(s.max, 1);
  EXPECT_EQ(s.sum.value(), -1);
  EXPECT_EQ(s.sum_squares.value(), 5);
  Statistic nothing;
  nothing.observe(std::vector<float>(5000, kNaN));
  nothing.end_sample();
  EXPECT_EQ(nothing.count, 0);
  EXPECT_EQ(nothing.non_finite, 5000);
  EXPECT_EQ(nothing.samples, 0);
}

TEST(Statistic, extreme_magnitudes) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  const float huge = std::numeric_limits<float>::max();
  Statistic s;
  s.observe(std::vector<float>{tiny, -tiny});
  EXPECT_EQ(s.exponent, Statistic::kLowestExponent);
  EXPECT_EQ(s.positive[0], 1u);
  EXPECT_EQ(s.negative[0], 1u);
  s.observe(std::vector<float>{huge, -huge});
  EXPECT_EQ(s.exponent, 128);
  EXPECT_EQ(s.positive[0], 1u);
  EXPECT_EQ(s.positive[2047], 1u);
  EXPECT_EQ(s.negative[2047], 1u);
  EXPECT_EQ(s.sum.value(), 0);
  EXPECT_NEAR(s.sum_squares.value() / (2 * std::pow(static_cast<double>(huge), 2)), 1, 1e-12);
  // A power of two is the first value of the next bin range.
  Statistic one;
  one.observe(std::vector<float>{1.0f});
  EXPECT_EQ(one.exponent, 1);
  EXPECT_EQ(one.positive[1024], 1u);
}

TEST(Statistic, samples_have_their_own_extremes) {
  Statistic s;
  s.observe(std::vector<float>{1, 2});
  s.observe(std::vector<float>{-3});
  s.end_sample();
  s.end_sample();  // without values: no sample
  s.observe(std::vector<float>{5, 4});
  s.end_sample();
  EXPECT_EQ(s.samples, 2);
  EXPECT_EQ(s.sum_of_minima.value(), -3 + 4);
  EXPECT_EQ(s.sum_of_maxima.value(), 2 + 5);
  // An open sample goes on in the merged statistic.
  Statistic open;
  open.observe(std::vector<float>{-7});
  s.merge(open);
  s.observe(std::vector<float>{9});
  s.end_sample();
  EXPECT_EQ(s.samples, 3);
  EXPECT_EQ(s.sum_of_minima.value(), 1 - 7);
  EXPECT_EQ(s.sum_of_maxima.value(), 7 + 9);
}

TEST(Statistic, range_detail_keeps_no_histogram) {
  const std::vector<float> x = data_of(Kind::normal, 5000);
  const Statistic full = observed(x);
  const Statistic range = observed(x, Detail::range);
  EXPECT_EQ(range.min, full.min);
  EXPECT_EQ(range.max, full.max);
  EXPECT_EQ(range.count, full.count);
  EXPECT_EQ(range.sum_of_maxima, full.sum_of_maxima);
  EXPECT_TRUE(range.positive.empty());
  EXPECT_EQ(range.sum, ExactSum());
  // A mixture knows no more than its poorer part, whichever comes first; empty parts do not count.
  Statistic a = full;
  a.merge(range);
  Statistic b = range;
  b.merge(full);
  EXPECT_EQ(a, b);
  EXPECT_EQ(a.detail, Detail::range);
  EXPECT_EQ(a.count, 10000);
  Statistic c = full;
  c.merge(Statistic(Detail::range));
  EXPECT_EQ(c, full);
  Statistic d{Detail::range};
  d.merge(full);
  EXPECT_EQ(d, full);
}

TEST(Statistic, counts_of_non_finite_values_merge_also_when_empty) {
  Statistic nothing;
  nothing.observe(std::vector<float>{kNaN});
  Statistic some = observed(std::vector<float>{1});
  some.merge(nothing);
  EXPECT_EQ(some.non_finite, 1);
  nothing.merge(observed(std::vector<float>{1}));
  EXPECT_EQ(nothing, some);
}

}  // namespace
}  // namespace narrow
