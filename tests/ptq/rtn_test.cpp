// SPDX-License-Identifier: Apache-2.0
// Rounding of weights and biases, and the search for scales at few bits.
#include "narrow/ptq/rtn/rtn.h"

#include <cmath>
#include <limits>

#include "ptq/ptq_testing.h"

namespace narrow {
namespace {

using namespace testing;

Scheme weight_scheme(int bits, Symmetry symmetry, Granularity granularity, bool is_signed = true) {
  Scheme s;
  s.bits = bits;
  s.is_signed = is_signed;
  s.symmetry = symmetry;
  s.granularity = granularity;
  if (granularity == Granularity::per_group) {
    s.axis = 1;
    s.group_size = 16;
  }
  return s;
}

/// Squared error of each unit, weighted by `importance` along the rows where it is given.
std::vector<double> unit_errors(const Tensor& w, const QuantParams& params,
                                const std::vector<float>& importance = {}) {
  const std::vector<float> exact = w.to_floats();
  const std::vector<float> rounded = fake_quant(w, params).to_floats();
  std::vector<double> errors(static_cast<size_t>(params.scale.elements()), 0.0);
  for (size_t i = 0; i < exact.size(); ++i) {
    const double e = static_cast<double>(exact[i]) - static_cast<double>(rounded[i]);
    const double weight =
        importance.empty() ? 1.0 : static_cast<double>(importance[i % importance.size()]);
    errors[static_cast<size_t>(unit_of(static_cast<int64_t>(i), w.dims(), params.scheme))] +=
        weight * e * e;
  }
  return errors;
}

double total(const std::vector<double>& errors) {
  double sum = 0;
  for (const double e : errors) sum += e;
  return sum;
}

TEST(WeightParams, AboveFourBitsTheExtremesDecide) {
  const Tensor w = random_tensor({4, 32}, 1);
  for (const int bits : {5, 6, 7, 8}) {
    const Scheme s = weight_scheme(bits, Symmetry::symmetric, Granularity::per_axis);
    EXPECT_TRUE(identical(weight_params(w, s).scale, minmax_params(w, s).scale)) << bits;
  }
}

TEST(WeightParams, TheSearchIsNeverWorseThanTheExtremes) {
  const Tensor w = random_tensor({6, 40}, 2);
  for (const int bits : {2, 3, 4}) {
    for (const Symmetry symmetry : {Symmetry::symmetric, Symmetry::asymmetric}) {
      for (const auto granularity :
           {Granularity::per_tensor, Granularity::per_axis, Granularity::per_group}) {
        for (const bool is_signed : {true, false}) {
          const Scheme s = weight_scheme(bits, symmetry, granularity, is_signed);
          SCOPED_TRACE(s.describe());
          const auto plain = unit_errors(w, minmax_params(w, s));
          const auto searched = unit_errors(w, weight_params(w, s));
          ASSERT_EQ(plain.size(), searched.size());
          for (size_t u = 0; u < plain.size(); ++u) {
            // The codes' error is summed in another order here.
            EXPECT_LE(searched[u], plain[u] * (1 + 1e-6)) << "unit " << u;
          }
          EXPECT_LT(total(searched), total(plain) * (bits == 2 ? 0.8 : bits == 3 ? 0.95 : 0.97));
        }
      }
    }
  }
}

TEST(WeightParams, ImportanceMovesTheScaleToWhatMatters) {
  std::vector<float> values;
  std::vector<float> importance;
  Rng rng(3);
  for (int i = 0; i < 31; ++i) {
    values.push_back(static_cast<float>(rng.normal()));
    importance.push_back(1);
  }
  values.push_back(60);  // an outlier whose input is always zero
  importance.push_back(0);
  const Tensor w = Tensor::from(values, {1, 32});
  const Scheme s = weight_scheme(4, Symmetry::symmetric, Granularity::per_axis);
  const QuantParams alike = weight_params(w, s);
  const QuantParams weighted = weight_params(w, s, {importance, 0});
  EXPECT_LT(weighted.scale.to_floats()[0], 0.7f * alike.scale.to_floats()[0]);
  EXPECT_LT(total(unit_errors(w, weighted, importance)),
            0.7 * total(unit_errors(w, alike, importance)));
}

TEST(WeightParams, ImportanceFollowsTheOrientation) {
  const Tensor rows = random_tensor({3, 8}, 4);
  std::vector<float> turned;
  const std::vector<float> v = rows.to_floats();
  for (size_t i = 0; i < 8; ++i) {
    for (size_t c = 0; c < 3; ++c) turned.push_back(v[c * 8 + i]);
  }
  const Tensor columns = Tensor::from(turned, {8, 3});
  const std::vector<float> importance{1, 2, 30, 4, 0.5f, 6, 0, 8};
  Scheme s = weight_scheme(3, Symmetry::symmetric, Granularity::per_axis);
  const Tensor by_row = weight_params(rows, s, {importance, 0}).scale;
  s.axis = 1;
  EXPECT_TRUE(identical(weight_params(columns, s, {importance, 1}).scale, by_row));
}

TEST(WeightParams, InputsNeverSeenCountAlike) {
  const Tensor w = random_tensor({2, 16}, 5);
  const Scheme s = weight_scheme(3, Symmetry::symmetric, Granularity::per_axis);
  EXPECT_TRUE(identical(weight_params(w, s, {std::vector<float>(16, 0.0f), 0}).scale,
                        weight_params(w, s).scale));
}

TEST(WeightParams, EmptyRangesAndConstantsAreExact) {
  for (const int bits : {2, 4, 8}) {
    for (const float value : {0.0f, 0.75f, -0.75f}) {
      const Tensor w = Tensor::from(std::vector<float>(8, value), {2, 4});
      const Scheme s = weight_scheme(bits, Symmetry::symmetric, Granularity::per_axis);
      const QuantizedTensor q = round_weights(w, s);
      for (const float scale : q.params.scale.to_floats()) EXPECT_GT(scale, 0);
      for (const float r : dequantize(q.codes, q.params).to_floats()) {
        EXPECT_NEAR(r, value, 1e-6) << bits;
      }
    }
  }
}

TEST(WeightParams, NotFiniteWeightsAreRefused) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const Tensor w = Tensor::from<float>({1, bad, 2, 3}, {2, 2});
    for (const int bits : {2, 4, 8}) {
      const Scheme s = weight_scheme(bits, Symmetry::symmetric, Granularity::per_axis);
      EXPECT_NE(refusal([&] { round_weights(w, s); }, ErrorCode::numeric_failure), "accepted");
    }
  }
}

TEST(RoundBias, CodesHaveTheProductOfBothScales) {
  const Tensor w = Tensor::from<float>({127, 1, 254, 2}, {2, 2});
  QuantizedTensor weights =
      round_weights(w, weight_scheme(8, Symmetry::symmetric, Granularity::per_axis));
  ASSERT_EQ(weights.params.scale.to_floats(), (std::vector<float>{1, 2}));
  const BiasResult r = round_bias(Tensor::from<float>({3, -4.5f}, {2}), 0.25f, w, weights);
  EXPECT_EQ(r.bias.codes.to_ints(), (std::vector<int64_t>{12, -9}));
  EXPECT_EQ(r.bias.params.scale.to_floats(), (std::vector<float>{0.25f, 0.5f}));
  EXPECT_TRUE(r.widened.empty());
  QuantizedTensor one =
      round_weights(w, weight_scheme(8, Symmetry::symmetric, Granularity::per_tensor));
  const BiasResult shared = round_bias(Tensor::from<float>({3, -4.5f}, {1, 2}), 0.25f, w, one);
  EXPECT_EQ(shared.bias.codes.to_ints(), (std::vector<int64_t>{6, -9}));
  EXPECT_EQ(shared.bias.codes.dims(), (Dims{1, 2}));
}

TEST(RoundBias, DeadChannelsGetAWiderScale) {
  const Tensor w = Tensor::from<float>({1e-12f, -1e-12f, 0.5f, 1}, {2, 2});
  QuantizedTensor weights =
      round_weights(w, weight_scheme(8, Symmetry::symmetric, Granularity::per_axis));
  const float untouched = weights.params.scale.to_floats()[1];
  const Tensor bias = Tensor::from<float>({-3, 0.1f}, {2});
  const BiasResult r = round_bias(bias, 0.01f, w, weights);
  EXPECT_EQ(r.widened, std::vector<int64_t>{0});
  const auto codes = r.bias.codes.to_ints();
  EXPECT_LE(std::abs(codes[0]), int64_t{1} << 30);
  EXPECT_NEAR(
      static_cast<double>(codes[0]) * static_cast<double>(r.bias.params.scale.to_floats()[0]), -3,
      1e-6);
  EXPECT_EQ(weights.params.scale.to_floats()[1], untouched);
  EXPECT_EQ(weights.codes.to_ints()[0], 0) << "nothing of such weights is left on the wider grid";
  EXPECT_EQ(weights.codes.to_ints()[3], 127);
}

TEST(RoundBias, NotFiniteIsRefused) {
  const Tensor w = Tensor::from<float>({1, 2}, {2, 1});
  QuantizedTensor weights =
      round_weights(w, weight_scheme(8, Symmetry::symmetric, Granularity::per_axis));
  const Tensor bias = Tensor::from<float>({0, std::numeric_limits<float>::infinity()}, {2});
  expect_in(refusal([&] { round_bias(bias, 1, w, weights); }, ErrorCode::numeric_failure),
            "bias element 1 is inf");
}

}  // namespace
}  // namespace narrow
