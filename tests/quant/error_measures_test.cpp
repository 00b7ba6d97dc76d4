// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/error_measures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"
#include "narrow/quant/quantize.h"

namespace narrow {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

ErrorMeasures measured(const std::vector<float>& r, const std::vector<float>& a) {
  ErrorMeasures m;
  m.add(r, a);
  return m;
}

TEST(ErrorMeasures, of_a_small_example) {
  const ErrorMeasures m = measured({1, -2, 3, 0}, {1, -2.5f, 3.25f, 0});
  EXPECT_EQ(m.count(), 4);
  EXPECT_EQ(m.exact(), 2);
  EXPECT_EQ(m.max_abs(), 0.5);
  EXPECT_DOUBLE_EQ(m.mse(), (0.25 + 0.0625) / 4);
  EXPECT_DOUBLE_EQ(m.rmse(), std::sqrt(m.mse()));
  EXPECT_DOUBLE_EQ(m.bias(), (-0.5 + 0.25) / 4);
  EXPECT_DOUBLE_EQ(m.sqnr_db(), 10 * std::log10(14 / 0.3125));
  EXPECT_DOUBLE_EQ(m.cosine(), (1 + 5 + 9.75) / std::sqrt(14 * (1 + 6.25 + 10.5625)));
  EXPECT_DOUBLE_EQ(m.max_relative_to_range(), 0.5 / 5);
}

TEST(ErrorMeasures, of_equal_and_of_zero_values) {
  const ErrorMeasures equal = measured({1, 2}, {1, 2});
  EXPECT_EQ(equal.sqnr_db(), kInf);
  EXPECT_DOUBLE_EQ(equal.cosine(), 1);
  EXPECT_EQ(equal.max_relative_to_range(), 0);
  const ErrorMeasures nothing = measured({}, {});
  EXPECT_EQ(nothing.mse(), 0);
  EXPECT_EQ(nothing.bias(), 0);
  EXPECT_EQ(nothing.cosine(), 1);
  EXPECT_EQ(nothing.sqnr_db(), kInf);
  const ErrorMeasures zero_reference = measured({0, 0}, {1, 0});
  EXPECT_EQ(zero_reference.sqnr_db(), -kInf);
  EXPECT_EQ(zero_reference.cosine(), 0);
  EXPECT_EQ(zero_reference.max_relative_to_range(), kInf);
  EXPECT_EQ(measured({1, 1}, {-1, -1}).cosine(), -1);
}

TEST(ErrorMeasures, what_is_not_finite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const ErrorMeasures same = measured({nan, inf, -inf, 1}, {nan, inf, -inf, 2});
  EXPECT_EQ(same.exact(), 3);
  EXPECT_EQ(same.max_abs(), 1);
  EXPECT_EQ(same.mse(), 0.25);
  for (const auto& [r, a] : std::vector<std::pair<float, float>>{
           {1, nan}, {nan, 1}, {inf, -inf}, {1, inf}, {inf, 3e38f}}) {
    const ErrorMeasures differs = measured({1, r}, {1, a});
    EXPECT_EQ(differs.max_abs(), kInf);
    EXPECT_EQ(differs.mse(), kInf);
    EXPECT_EQ(differs.sqnr_db(), -kInf);
    EXPECT_EQ(differs.exact(), 1);
  }
  EXPECT_EQ(measured({3e38f}, {-3e38f}).max_abs(), 2 * static_cast<double>(3e38f));
}

TEST(ErrorMeasures, needs_equally_many_values) {
  EXPECT_THROW(measured({1, 2}, {1}), Error);
  EXPECT_THROW(measure_error(Tensor(DType::float32, {2}), Tensor(DType::float32, {3})), Error);
}

TEST(ErrorMeasures, equals_a_plain_sum_and_ignores_threads) {
  Rng rng(3);
  std::vector<float> r(200003);
  std::vector<float> a(r.size());
  double squares = 0;
  double errors = 0;
  for (size_t i = 0; i < r.size(); ++i) {
    r[i] = static_cast<float>(rng.normal());
    a[i] = r[i] + 0.01f * static_cast<float>(rng.normal());
    const double e = static_cast<double>(a[i]) - static_cast<double>(r[i]);
    squares += static_cast<double>(r[i]) * static_cast<double>(r[i]);
    errors += e * e;
  }
  const Tensor rt = Tensor::vector(r);
  const Tensor at = Tensor::vector(a);
  std::vector<double> results;
  for (const int threads : {1, 2, 4}) {
    const ThreadLimit limit(threads);
    const ErrorMeasures m = measure_error(rt, at);
    EXPECT_NEAR(m.sqnr_db(), 10 * std::log10(squares / errors), 1e-9);
    results.insert(results.end(), {m.mse(), m.cosine(), m.bias(), m.max_abs()});
  }
  for (size_t i = 4; i < results.size(); ++i) EXPECT_EQ(results[i], results[i % 4]);
}

TEST(ErrorMeasures, merges) {
  ErrorMeasures whole = measured({1, 2, 3, -4}, {1, 2.5f, 3, -4.25f});
  ErrorMeasures parts = measured({1, 2}, {1, 2.5f});
  parts.merge(measured({3, -4}, {3, -4.25f}));
  EXPECT_EQ(parts.count(), whole.count());
  EXPECT_EQ(parts.exact(), whole.exact());
  EXPECT_DOUBLE_EQ(parts.mse(), whole.mse());
  EXPECT_DOUBLE_EQ(parts.cosine(), whole.cosine());
  EXPECT_DOUBLE_EQ(parts.sqnr_db(), whole.sqnr_db());
  EXPECT_EQ(parts.max_relative_to_range(), whole.max_relative_to_range());
}

TEST(ErrorMeasures, counts_saturated_codes) {
  const Scheme s{.bits = 4, .narrow_range = true};
  ErrorMeasures m;
  m.add_codes(Tensor::from_ints(std::vector<int64_t>{-7, 7, 0, 6, -6, 7}, DType::int4, {6}), s);
  EXPECT_EQ(m.codes(), 6);
  EXPECT_EQ(m.saturated(), 3);
}

TEST(ErrorMeasures, the_noise_of_a_grid_is_a_twelfth_of_its_step_squared) {
  Rng rng(8);
  Tensor x(DType::float32, {400000});
  for (float& v : x.mutable_data<float>()) v = static_cast<float>(2 * rng.uniform() - 1);
  for (const int bits : {4, 6, 8}) {
    const QuantParams p = minmax_params(x, {.bits = bits});
    const double step = static_cast<double>(p.scale.item<float>());
    EXPECT_NEAR(measure_error(x, fake_quant(x, p)).mse() / (step * step / 12), 1, 0.02);
  }
}

}  // namespace
}  // namespace narrow
