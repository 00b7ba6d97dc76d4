// SPDX-License-Identifier: Apache-2.0
#include "narrow/calibrate/observer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/quant/error_measures.h"
#include "narrow/quant/quantize.h"

namespace narrow {
namespace {

const std::vector<ObserverKind> kObservers = {ObserverKind::minmax, ObserverKind::moving_average,
                                              ObserverKind::percentile, ObserverKind::mse,
                                              ObserverKind::entropy};
const Scheme kSymmetric{.bits = 8};
const Scheme kAsymmetric{.bits = 8, .is_signed = false, .symmetry = Symmetry::asymmetric};

std::vector<float> draw(size_t count, const std::function<double(Rng&)>& value, uint64_t seed = 5) {
  Rng rng(seed);
  std::vector<float> x(count);
  for (float& v : x) v = static_cast<float>(value(rng));
  return x;
}

/// With true tails (Box and Muller), unlike Rng::normal().
double normal(Rng& r) {
  const double radius = std::sqrt(-2 * std::log(1 - r.uniform()));
  return radius * std::cos(6.283185307179586 * r.uniform());
}

std::vector<float> gauss(size_t count) {
  return draw(count, normal);
}

Statistic observed(const std::vector<float>& x) {
  Statistic s;
  s.observe(x);
  s.end_sample();
  return s;
}

Range estimate(const std::vector<float>& x, ObserverKind kind, const Scheme& scheme,
               double percentile = 99.999) {
  return estimate_range(observed(x), {kind, percentile}, scheme);
}

/// The mean squared error on the data themselves.
double true_mse(const Tensor& x, const Range& r, const Scheme& scheme) {
  const QuantParams p = params_from_ranges({&r.rmin, 1}, {&r.rmax, 1}, {}, scheme);
  return measure_error(x, fake_quant(x, p)).mse();
}

TEST(Observer, names_round_trip) {
  for (const ObserverKind kind : kObservers) EXPECT_EQ(observer_from_string(to_string(kind)), kind);
  EXPECT_FALSE(observer_from_string("histogram"));
}

TEST(Observer, every_range_contains_zero_and_lies_in_the_data) {
  const std::vector<std::vector<float>> sets = {
      gauss(3000),
      draw(3000, [](Rng& r) { return 5 + r.uniform(); }),
      draw(3000, [](Rng& r) { return -2 - r.uniform(); }),
      draw(3000, [](Rng& r) { return std::max(0.0, r.normal()); }),
      std::vector<float>(100, 0.0f),
      std::vector<float>(100, 1.0f),
      std::vector<float>(100, -0.3f),
      {1e-30f, -1e-33f},
      {3e38f, -3e38f}};
  for (const auto& x : sets) {
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    for (const ObserverKind kind : kObservers) {
      for (const Symmetry symmetry :
           {Symmetry::symmetric, Symmetry::asymmetric, Symmetry::offset}) {
        for (const int bits : {2, 4, 8, 16}) {
          const Scheme scheme{.bits = bits, .symmetry = symmetry};
          const Range r = estimate(x, kind, scheme);
          EXPECT_LE(r.rmin, 0) << to_string(kind);
          EXPECT_GE(r.rmax, 0) << to_string(kind);
          EXPECT_GE(r.rmin, std::min(*low, 0.0f)) << to_string(kind) << " " << scheme.describe();
          EXPECT_LE(r.rmax, std::max(*high, 0.0f)) << to_string(kind) << " " << scheme.describe();
          // A constant that is not 0 keeps a range.
          EXPECT_TRUE(r.rmax > r.rmin || *low == *high * 0) << to_string(kind);
        }
      }
    }
  }
}

TEST(Observer, refuses_statistics_without_values) {
  for (const ObserverKind kind : kObservers) {
    Statistic s;
    s.observe(std::vector<float>{std::nanf("")});
    for (const Statistic& empty : {Statistic(), s}) {
      try {
        estimate_range(empty, {kind}, kAsymmetric);
        FAIL() << to_string(kind);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::numeric_failure);
      }
    }
  }
}

TEST(Observer, refuses_what_was_not_collected) {
  Statistic range(Detail::range);
  range.observe(gauss(100));
  EXPECT_THROW(estimate_range(range, {ObserverKind::moving_average}, kAsymmetric), Error);
  range.end_sample();
  for (const ObserverKind kind : kObservers) {
    if (detail_for(kind) == Detail::range) {
      EXPECT_NO_THROW(estimate_range(range, {kind}, kAsymmetric));
    } else {
      EXPECT_THROW(estimate_range(range, {kind}, kAsymmetric), Error) << to_string(kind);
    }
  }
  const Statistic full = observed(gauss(100));
  for (const double p : {0.0, -1.0, 100.1, std::nan("")}) {
    EXPECT_THROW(estimate_range(full, {ObserverKind::percentile, p}, kAsymmetric), Error) << p;
  }
}

TEST(MinMax, is_exact) {
  EXPECT_EQ(estimate({-1.25f, 3.5f, 2}, ObserverKind::minmax, kAsymmetric), (Range{-1.25f, 3.5f}));
  EXPECT_EQ(estimate({1.25f, 3.5f}, ObserverKind::minmax, kAsymmetric), (Range{0, 3.5f}));
  EXPECT_EQ(estimate({-2, -1}, ObserverKind::minmax, kSymmetric), (Range{-2, 0}));
}

TEST(MovingAverage, is_the_mean_of_sample_extremes) {
  Statistic s;
  for (const auto& sample : std::vector<std::vector<float>>{{-1, 2}, {-3, 6, 0}, {1, 4}}) {
    s.observe(sample);
    s.end_sample();
  }
  EXPECT_EQ(estimate_range(s, {ObserverKind::moving_average}, kAsymmetric), (Range{-1, 4}));
}

TEST(Percentile, is_the_order_statistic_up_to_one_bin) {
  for (const double percentile : {100.0, 99.99, 99.9, 99.0, 90.0, 50.0}) {
    std::vector<float> x = draw(20000, [](Rng& r) { return r.normal() * std::exp(r.normal()); });
    const Statistic s = observed(x);
    const double bin = std::ldexp(1.0, s.exponent - 11);
    std::sort(x.begin(), x.end());
    const Range both = estimate_range(s, {ObserverKind::percentile, percentile}, kAsymmetric);
    const auto cut = static_cast<size_t>(20000 * (100 - percentile) / 200);
    EXPECT_NEAR(both.rmin, std::min(0.0f, x[cut]), bin) << percentile;
    EXPECT_NEAR(both.rmax, std::max(0.0f, x[x.size() - 1 - cut]), bin) << percentile;
    std::vector<float> sizes(x.size());
    std::transform(x.begin(), x.end(), sizes.begin(), [](float v) { return std::fabs(v); });
    std::sort(sizes.begin(), sizes.end());
    const Range symmetric = estimate_range(s, {ObserverKind::percentile, percentile}, kSymmetric);
    const float expected =
        sizes[sizes.size() - 1 - static_cast<size_t>(20000 * (100 - percentile) / 100)];
    EXPECT_NEAR(std::max(-symmetric.rmin, symmetric.rmax), expected, bin) << percentile;
  }
}

TEST(Percentile, zeros_count_as_values) {
  std::vector<float> x(99000, 0.0f);
  for (int i = 0; i < 1000; ++i) x.push_back(1.0f + static_cast<float>(i));
  // One value in a thousand is cut at the upper end: 100 of the 1000 that are not zero.
  const Range r = estimate(x, ObserverKind::percentile, kAsymmetric, 99.8);
  EXPECT_NEAR(r.rmax, 900, 1);
  EXPECT_EQ(r.rmin, 0);
}

TEST(Mse, is_as_good_as_an_exhaustive_search_on_the_data) {
  const std::vector<std::pair<const char*, std::vector<float>>> sets = {
      {"gauss", gauss(6000)},
      {"laplace",
       draw(6000, [](Rng& r) { return (r.below(2) ? 1 : -1) * -std::log(1 - r.uniform()); })},
      {"relu", draw(6000, [](Rng& r) { return std::max(0.0, r.normal()); })},
      {"uniform", draw(6000, [](Rng& r) { return 2 * r.uniform() - 1; })},
      {"outlier", [] {
         std::vector<float> x = gauss(6000);
         x[7] = 60;
         return x;
       }()}};
  for (const auto& [name, x] : sets) {
    const Tensor t = Tensor::vector(x);
    for (const int bits : {2, 4, 8}) {
      const auto [low, high] = std::minmax_element(x.begin(), x.end());
      const float amax = std::max(-*low, *high);
      const Scheme symmetric{.bits = bits};
      double best = std::numeric_limits<double>::infinity();
      for (int i = 1; i <= 100; ++i) {
        const float clip = amax * static_cast<float>(i) / 100;
        best = std::min(best, true_mse(t, {-clip, clip}, symmetric));
      }
      const double ours = true_mse(t, estimate(x, ObserverKind::mse, symmetric), symmetric);
      EXPECT_LE(ours, best * 1.03) << name << " " << bits;
      const Scheme asymmetric{.bits = bits, .is_signed = false, .symmetry = Symmetry::asymmetric};
      best = true_mse(t, {*low, *high}, asymmetric);
      for (int i = 1; i <= 16; ++i) {
        for (int j = 1; j <= 16; ++j) {
          const Range r{std::min(0.0f, *low * static_cast<float>(i) / 16),
                        *high * static_cast<float>(j) / 16};
          best = std::min(best, true_mse(t, r, asymmetric));
        }
      }
      EXPECT_LE(true_mse(t, estimate(x, ObserverKind::mse, asymmetric), asymmetric), best * 1.05)
          << name << " " << bits;
    }
  }
}

TEST(Mse, meets_the_known_optimum_of_gaussian_data) {
  // The best steps of uniform quantizers with 7, 15 and 255 levels: J. Max, 1960, for the first
  // two; 3.92 sigma at 8 bits from ACIQ.
  const std::vector<float> x = gauss(1 << 18);
  const std::vector<std::pair<int, float>> table = {{3, 3 * 0.6508f}, {4, 7 * 0.3534f}, {8, 3.92f}};
  for (const auto& [bits, clip] : table) {
    const Range r = estimate(x, ObserverKind::mse, {.bits = bits, .narrow_range = true});
    EXPECT_NEAR(std::max(-r.rmin, r.rmax) / clip, 1, 0.04) << bits;
  }
}

TEST(Mse, ignores_exact_zeros) {
  std::vector<float> x = draw(5000, [](Rng& r) { return std::fabs(r.normal()); });
  const Range without = estimate(x, ObserverKind::mse, {.bits = 4});
  x.insert(x.end(), 100000, 0.0f);
  EXPECT_EQ(estimate(x, ObserverKind::mse, {.bits = 4}), without);
  EXPECT_EQ(estimate(x, ObserverKind::entropy, {.bits = 4}).rmin, 0);
}

TEST(Mse, keeps_the_whole_range_of_uniform_data_and_of_constants) {
  const std::vector<float> x = draw(50000, [](Rng& r) { return 2 * r.uniform() - 1; });
  const Range r = estimate(x, ObserverKind::mse, kSymmetric);
  EXPECT_GT(r.rmax, 0.98f);
  EXPECT_EQ(estimate(std::vector<float>(10, 0.7f), ObserverKind::mse, kAsymmetric).rmax, 0.7f);
  EXPECT_EQ(estimate(std::vector<float>(10, 1.0f), ObserverKind::mse, kAsymmetric).rmax, 1.0f);
}

/// KL(P | Q) of the magnitudes below bin `end`, step by step as the method is described.
double plain_divergence(const std::vector<double>& counts, size_t end, size_t levels) {
  std::vector<double> p(counts.begin(), counts.begin() + static_cast<std::ptrdiff_t>(end));
  std::vector<double> inside = p;
  double total = 0;
  for (const double c : counts) total += c;
  double kept = 0;
  for (const double c : inside) kept += c;
  p.back() += total - kept;
  std::vector<double> q(end);
  for (size_t g = 0; g < levels; ++g) {
    const size_t begin = end * g / levels;
    const size_t stop = end * (g + 1) / levels;
    double sum = 0;
    double filled = 0;
    for (size_t i = begin; i < stop; ++i) {
      sum += inside[i];
      filled += p[i] > 0 ? 1 : 0;
    }
    for (size_t i = begin; i < stop; ++i) {
      if (p[i] > 0) q[i] = sum / filled;
    }
  }
  double divergence = 0;
  for (size_t i = 0; i < end; ++i) {
    if (p[i] == 0) continue;
    const double smooth = (1 - 1e-4) * q[i] / kept + 1e-4 / static_cast<double>(end);
    divergence += p[i] / total * std::log(p[i] / total / smooth);
  }
  return divergence;
}

TEST(Entropy, finds_the_least_divergence) {
  const std::vector<std::vector<float>> sets = {
      gauss(20000), draw(20000, [](Rng& r) { return r.normal() * std::exp(1.5 * r.normal()); }),
      draw(20000, [](Rng& r) { return std::max(0.0, r.normal()); })};
  for (const auto& x : sets) {
    for (const int bits : {4, 8}) {
      const Statistic s = observed(x);
      std::vector<double> counts(Statistic::kBins);
      for (size_t i = 0; i < s.negative.size(); ++i)
        counts[i] += static_cast<double>(s.negative[i]);
      for (size_t i = 0; i < s.positive.size(); ++i)
        counts[i] += static_cast<double>(s.positive[i]);
      while (counts.back() == 0) counts.pop_back();
      const size_t levels = size_t{1} << (bits - 1);
      double least = std::numeric_limits<double>::infinity();
      for (size_t end = counts.size(); end >= levels + 4; end -= 4) {
        least = std::min(least, plain_divergence(counts, end, levels));
      }
      const Range r = estimate_range(s, {ObserverKind::entropy}, {.bits = bits});
      const double clip = static_cast<double>(std::max(-r.rmin, r.rmax));
      const auto end = std::min(counts.size(),
                                static_cast<size_t>(std::ceil(std::ldexp(clip, 11 - s.exponent))));
      EXPECT_LE(plain_divergence(counts, end, levels), least * (1 + 1e-9)) << bits;
    }
  }
}

TEST(Entropy, known_shapes) {
  // At 4 bits Gaussian data are clipped between 3 and 4 sigma; an outlier changes little.
  std::vector<float> x = gauss(200000);
  const Range plain = estimate(x, ObserverKind::entropy, {.bits = 4});
  EXPECT_GT(plain.rmax, 3.0f);
  EXPECT_LT(plain.rmax, 4.0f);
  x[3] = 20;
  const Range with_outlier = estimate(x, ObserverKind::entropy, {.bits = 4});
  EXPECT_NEAR(with_outlier.rmax / plain.rmax, 1, 0.3);
  const Range both = estimate(x, ObserverKind::entropy,
                              {.bits = 4, .is_signed = false, .symmetry = Symmetry::asymmetric});
  EXPECT_LT(both.rmax, 5.0f);
  EXPECT_GT(both.rmax, 2.0f);
  EXPECT_LT(both.rmin, -2.0f);
  // More levels than bins: nothing to gain.
  EXPECT_EQ(estimate(x, ObserverKind::entropy, {.bits = 16}),
            estimate(x, ObserverKind::minmax, {.bits = 16}));
}

TEST(Entropy, a_spike_at_zero_does_not_cut_the_range) {
  // Half of a ReLU's outputs are 0. Histograms that count them cut at about 2 sigma.
  const std::vector<float> x = draw(200000, [](Rng& r) { return std::max(0.0, r.normal()); });
  EXPECT_GT(estimate(x, ObserverKind::entropy, kAsymmetric).rmax, 3.3f);
}

}  // namespace
}  // namespace narrow
