// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/core/half.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"
#include "schemes.h"

namespace narrow {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> normal_values(size_t count, uint64_t seed, double sigma = 1, double mean = 0) {
  Rng rng(seed);
  std::vector<float> x(count);
  for (float& v : x) v = static_cast<float>(mean + sigma * rng.normal());
  return x;
}

/// The real values that a grid can represent at its ends.
float lowest(const ScaleZeroPoint& p, const Scheme& s) {
  return dequantize_value(s.qmin(), p, s);
}
float highest(const ScaleZeroPoint& p, const Scheme& s) {
  return dequantize_value(s.qmax(), p, s);
}

const std::vector<std::pair<float, float>> kRanges = {
    {-1, 1},  {0, 6},          {-0.3f, 2.7f}, {-5, 0},           {0.5f, 1.5f},
    {-3, -2}, {-1e-6f, 2e-6f}, {-3e3f, 1e4f}, {-1e-20f, 1e-20f}, {0, 0}};

TEST(RoundHalfEven, equals_the_definition) {
  const std::vector<std::pair<float, float>> table = {{0.5f, 0},
                                                      {1.5f, 2},
                                                      {2.5f, 2},
                                                      {-0.5f, -0.0f},
                                                      {-1.5f, -2},
                                                      {-2.5f, -2},
                                                      {0.49999997f, 0},
                                                      {-0.49999997f, -0.0f},
                                                      {0.50000006f, 1},
                                                      {1.4999999f, 1},
                                                      {8388607.5f, 8388608.0f},
                                                      {4194303.5f, 4194304.0f},
                                                      {4194302.5f, 4194302.0f},
                                                      {1e30f, 1e30f},
                                                      {-1e30f, -1e30f},
                                                      {kInf, kInf},
                                                      {-kInf, -kInf},
                                                      {0.0f, 0.0f},
                                                      {-0.0f, -0.0f}};
  for (const auto& [x, expected] : table) {
    EXPECT_EQ(round_half_even(x), expected) << x;
    EXPECT_EQ(std::signbit(round_half_even(x)), std::signbit(expected)) << x;
  }
  EXPECT_TRUE(std::isnan(round_half_even(kNaN)));
}

TEST(RoundHalfEven, does_not_depend_on_the_rounding_mode) {
  Rng rng(7);
  for (int i = 0; i < 20000; ++i) {
    const auto bits = static_cast<uint32_t>(rng.next());
    float x = 0;
    std::memcpy(&x, &bits, sizeof x);
    if (std::isnan(x)) continue;
    const float expected = std::nearbyint(x);  // the default mode is half to even
    for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO, FE_TONEAREST}) {
      std::fesetround(mode);
      const float got = round_half_even(x);
      std::fesetround(FE_TONEAREST);
      ASSERT_EQ(got, expected) << x << " in mode " << mode;
    }
  }
}

TEST(ChooseParams, zero_is_exact) {
  for (const Scheme& s : all_grids()) {
    if (s.symmetry == Symmetry::offset) continue;
    for (const auto& [rmin, rmax] : kRanges) {
      const ScaleZeroPoint p = choose_params(rmin, rmax, s);
      EXPECT_GT(p.scale, 0) << s.describe();
      EXPECT_GE(p.zero_point, s.qmin()) << s.describe();
      EXPECT_LE(p.zero_point, s.qmax()) << s.describe();
      EXPECT_EQ(quantize_value(0.0f, p, s), p.zero_point) << s.describe();
      EXPECT_EQ(dequantize_value(p.zero_point, p, s), 0.0f) << s.describe();
    }
  }
}

TEST(ChooseParams, the_scale_has_its_stored_type) {
  for (const Scheme& s : all_grids()) {
    for (const auto& [rmin, rmax] : kRanges) {
      const float scale = choose_params(rmin, rmax, s).scale;
      if (s.scale_type == ScaleType::float16) {
        EXPECT_EQ(to_float(to_half(scale)), scale);
      } else if (s.scale_type == ScaleType::bfloat16) {
        EXPECT_EQ(to_float(to_bfloat16(scale)), scale);
      } else if (s.scale_type == ScaleType::power_of_two) {
        int exponent = 0;
        EXPECT_EQ(std::frexp(scale, &exponent), 0.5f) << scale;
      }
    }
  }
}

TEST(ChooseParams, a_power_of_two_is_the_next_one_above) {
  Scheme s{.scale_type = ScaleType::power_of_two};
  EXPECT_EQ(choose_params(-127, 127, s).scale, 1.0f);
  EXPECT_EQ(choose_params(-127.01f, 3, s).scale, 2.0f);
  EXPECT_EQ(choose_params(-126, 3, s).scale, 1.0f);
  EXPECT_EQ(choose_params(-63.5f, 3, s).scale, 0.5f);
}

TEST(ChooseParams, symmetric_scale_is_amax_over_qmax) {
  EXPECT_EQ(choose_params(-2, 1, {.bits = 8}).scale, 2.0f / 127);
  EXPECT_EQ(choose_params(-2, 1, {.bits = 8, .narrow_range = true}).scale, 2.0f / 127);
  EXPECT_EQ(choose_params(-2, 1, {.bits = 2}).scale, 2.0f);
  const Scheme no_sign{.bits = 4, .is_signed = false};
  EXPECT_EQ(choose_params(-2, 1, no_sign).scale, 2.0f / 7);
  EXPECT_EQ(choose_params(-2, 1, no_sign).zero_point, 8);
  EXPECT_EQ(quantize_value(-2, choose_params(-2, 1, no_sign), no_sign), 1);
}

TEST(ChooseParams, an_all_zero_range_has_scale_1) {
  for (const Scheme& s : all_grids()) {
    const ScaleZeroPoint p = choose_params(0, 0, s);
    EXPECT_EQ(p.scale, 1.0f);
    EXPECT_EQ(dequantize_value(quantize_value(0, p, s), p, s), 0.0f) << s.describe();
  }
}

TEST(ChooseParams, tiny_ranges_never_give_a_zero_scale) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  for (const Scheme& s : all_grids()) {
    const ScaleZeroPoint p = choose_params(-tiny, tiny, s);
    EXPECT_GT(p.scale, 0) << s.describe();
    EXPECT_TRUE(std::isfinite(dequantize_value(quantize_value(tiny, p, s), p, s)));
  }
  EXPECT_EQ(choose_params(-1e-9f, 1e-9f, {.scale_type = ScaleType::float16}).scale, 0x1p-24f);
}

TEST(ChooseParams, huge_ranges_do_not_overflow) {
  const float huge = std::numeric_limits<float>::max();
  for (const Symmetry symmetry : {Symmetry::symmetric, Symmetry::asymmetric, Symmetry::offset}) {
    const Scheme s{.symmetry = symmetry};
    const ScaleZeroPoint p = choose_params(-huge, huge, s);
    EXPECT_TRUE(std::isfinite(p.scale));
    EXPECT_EQ(quantize_value(huge, p, s), s.qmax()) << s.describe();
  }
  EXPECT_THROW(choose_params(-huge, huge, {.scale_type = ScaleType::float16}), Error);
  EXPECT_THROW(choose_params(-1e8f, 0, {.scale_type = ScaleType::float16}), Error);
}

TEST(ChooseParams, refuses_ranges_that_are_none) {
  for (const auto& [rmin, rmax] :
       std::vector<std::pair<float, float>>{{kNaN, 1}, {0, kNaN}, {-kInf, 1}, {0, kInf}}) {
    try {
      choose_params(rmin, rmax, {});
      FAIL() << rmin << " " << rmax;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::numeric_failure);
    }
  }
  EXPECT_THROW(choose_params(2, 1, {}), Error);
  EXPECT_THROW(choose_params(0, 1, {.bits = 9}), Error);
}

TEST(QuantizeValue, round_trip_is_within_half_a_step) {
  for (const Scheme& s : all_grids()) {
    for (const auto& [rmin, rmax] : kRanges) {
      const ScaleZeroPoint p = choose_params(rmin, rmax, s);
      const float from = std::max(lowest(p, s), rmin);
      const float to = std::min(highest(p, s), rmax);
      if (from > to) continue;  // the range lies within half a step of the grid's end
      Rng rng(11);
      for (int i = 0; i <= 100; ++i) {
        const double at = i == 0 ? 0 : i == 1 ? 1 : rng.uniform();
        const float x = std::clamp(
            static_cast<float>(static_cast<double>(from) +
                               at * (static_cast<double>(to) - static_cast<double>(from))),
            from, to);
        const float y = dequantize_value(quantize_value(x, p, s), p, s);
        // A few roundings of float32 in x, in the division and in the product.
        const float slack = 4e-7f * std::max(std::fabs(x), std::fabs(p.offset));
        ASSERT_LE(std::fabs(y - x), p.scale / 2 + slack) << s.describe() << " x " << x;
      }
    }
  }
}

TEST(QuantizeValue, the_chosen_range_sticks_out_by_half_a_step_at_most) {
  for (const Scheme& s : all_grids()) {
    if (s.scale_type == ScaleType::float16 || s.scale_type == ScaleType::bfloat16) continue;
    for (const auto& [rmin, rmax] : kRanges) {
      const ScaleZeroPoint p = choose_params(rmin, rmax, s);
      const float slack = p.scale / 2 * 1.001f;
      EXPECT_GE(rmin, lowest(p, s) - slack) << s.describe();
      EXPECT_LE(rmax, highest(p, s) + slack) << s.describe();
    }
  }
}

TEST(QuantizeValue, is_monotone) {
  for (const Scheme& s : all_grids()) {
    for (const auto& [rmin, rmax] : kRanges) {
      const ScaleZeroPoint p = choose_params(rmin, rmax, s);
      std::vector<float> x = normal_values(
          200, 3, 2 * static_cast<double>(std::max(std::fabs(rmin), std::fabs(rmax)) + 1e-30f));
      x.insert(x.end(), {-kInf, kInf, -3e38f, 3e38f, 0.0f, -0.0f});
      std::sort(x.begin(), x.end());
      for (size_t i = 1; i < x.size(); ++i) {
        ASSERT_LE(quantize_value(x[i - 1], p, s), quantize_value(x[i], p, s)) << s.describe();
      }
    }
  }
}

TEST(QuantizeValue, every_code_survives_the_round_trip) {
  for (const Scheme& s : all_grids()) {
    for (const auto& [rmin, rmax] : kRanges) {
      const ScaleZeroPoint p = choose_params(rmin, rmax, s);
      // An offset far larger than the range swallows the steps' low bits.
      if (std::fabs(p.offset) > 1000 * p.scale) continue;
      const int32_t stride = s.bits == 16 ? 97 : 1;
      for (int32_t code = s.qmin(); code <= s.qmax(); code += stride) {
        ASSERT_EQ(quantize_value(dequantize_value(code, p, s), p, s), code) << s.describe();
      }
    }
  }
}

TEST(QuantizeValue, ties_go_to_the_even_step_before_the_zero_point_is_added) {
  const Scheme s{.is_signed = false, .symmetry = Symmetry::asymmetric};
  for (const int32_t zero_point : {0, 1, 100, 101}) {
    const ScaleZeroPoint p{.scale = 0.25f, .zero_point = zero_point};
    EXPECT_EQ(quantize_value(0.125f, p, s), zero_point);      // 0.5 -> 0
    EXPECT_EQ(quantize_value(0.375f, p, s), zero_point + 2);  // 1.5 -> 2
    EXPECT_EQ(quantize_value(0.625f, p, s), zero_point + 2);  // 2.5 -> 2
    if (zero_point >= 100) {
      EXPECT_EQ(quantize_value(-0.375f, p, s), zero_point - 2);
      EXPECT_EQ(quantize_value(-0.625f, p, s), zero_point - 2);
    }
  }
}

TEST(QuantizeValue, what_is_not_finite) {
  for (const Scheme& s : all_grids()) {
    const ScaleZeroPoint p = choose_params(-1, 2, s);
    EXPECT_EQ(quantize_value(kInf, p, s), s.qmax());
    EXPECT_EQ(quantize_value(-kInf, p, s), s.qmin());
    EXPECT_EQ(quantize_value(kNaN, p, s), s.symmetry == Symmetry::offset ? s.qmin() : p.zero_point);
  }
}

TEST(QuantizeValue, honours_negative_and_zero_scales_of_imported_grids) {
  const Scheme s{.bits = 4};
  const ScaleZeroPoint negative{.scale = -0.5f};
  EXPECT_EQ(quantize_value(1.0f, negative, s), -2);
  EXPECT_EQ(dequantize_value(-2, negative, s), 1.0f);
  const ScaleZeroPoint zero{.scale = 0};
  EXPECT_EQ(dequantize_value(7, zero, s), 0.0f);
  EXPECT_EQ(quantize_value(0.0f, zero, s), 0);
}

// The textbook: s = (2^n - 1) / (max - min), q = round(s (x - min)).
double textbook_position(float x, float rmin, float rmax, int bits) {
  const double s = ((1 << bits) - 1) / (static_cast<double>(rmax) - static_cast<double>(rmin));
  return s * (static_cast<double>(x) - static_cast<double>(rmin));
}

TEST(Textbook, the_offset_scheme_equals_it_except_at_ties) {
  for (int bits = 2; bits <= 8; ++bits) {
    const Scheme s{.bits = bits, .is_signed = false, .symmetry = Symmetry::offset};
    for (const auto& [rmin, rmax] : kRanges) {
      if (rmin == rmax) continue;
      const ScaleZeroPoint p = choose_params(rmin, rmax, s);
      EXPECT_EQ(p.offset, rmin);
      Rng rng(5);
      int compared = 0;
      for (int i = 0; i < 2000; ++i) {
        const float x = static_cast<float>(
            static_cast<double>(rmin) +
            rng.uniform() * (static_cast<double>(rmax) - static_cast<double>(rmin)));
        const double at = textbook_position(x, rmin, rmax, bits);
        // A tie here is what float32 cannot tell from one: scale, difference and quotient round.
        if (std::fabs(at - std::floor(at) - 0.5) < 4e-7 * std::max(1.0, at)) continue;
        ++compared;
        ASSERT_EQ(quantize_value(x, p, s), static_cast<int32_t>(std::floor(at + 0.5)))
            << s.describe() << " x " << x;
      }
      EXPECT_GT(compared, 1990);
      EXPECT_EQ(quantize_value(rmin, p, s), 0);
      EXPECT_EQ(quantize_value(rmax, p, s), s.qmax());
    }
  }
}

TEST(Textbook, the_zero_point_scheme_equals_it_on_the_nudged_range) {
  for (int bits = 2; bits <= 8; ++bits) {
    const Scheme s{.bits = bits, .is_signed = false, .symmetry = Symmetry::asymmetric};
    for (const auto& [rmin, rmax] : kRanges) {
      if (rmin == rmax) continue;
      const ScaleZeroPoint p = choose_params(rmin, rmax, s);
      // The range that the integers stand for; with it the textbook's s is 1 / scale.
      const double low = -static_cast<double>(p.scale) * p.zero_point;
      const float widened_min = std::min(rmin, 0.0f);
      const float widened_max = std::max(rmax, 0.0f);
      Rng rng(6);
      for (int i = 0; i < 2000; ++i) {
        const float x = static_cast<float>(
            static_cast<double>(widened_min) +
            rng.uniform() * (static_cast<double>(widened_max) - static_cast<double>(widened_min)));
        const int32_t code = quantize_value(x, p, s);
        const double nudged = (static_cast<double>(x) - low) / static_cast<double>(p.scale);
        if (std::fabs(nudged - std::floor(nudged) - 0.5) > 4e-7 * std::max(1.0, nudged)) {
          const double expected =
              std::clamp(std::floor(nudged + 0.5), 0.0, static_cast<double>(s.qmax()));
          ASSERT_EQ(code, static_cast<int32_t>(expected)) << s.describe() << " x " << x;
        }
        const double plain = textbook_position(x, widened_min, widened_max, bits);
        ASSERT_LE(std::fabs(code - std::nearbyint(plain)), 1) << s.describe() << " x " << x;
      }
    }
  }
}

/// The units of a tensor one element at a time, as the header defines them.
std::vector<Tensor> values_by_unit(const Tensor& x, const Scheme& s, int64_t units) {
  std::vector<std::vector<float>> parts(static_cast<size_t>(units));
  const auto values = x.data<float>();
  for (int64_t i = 0; i < x.elements(); ++i) {
    parts[static_cast<size_t>(unit_of(i, x.dims(), s))].push_back(values[static_cast<size_t>(i)]);
  }
  std::vector<Tensor> out;
  for (const auto& part : parts) out.push_back(Tensor::vector(part));
  return out;
}

TEST(Quantize, every_granularity_equals_the_units_one_by_one) {
  // 19 in the last dimension: vector loops and their remainders both run.
  const Dims dims = {5, 7, 19};
  const Tensor x = Tensor::from(normal_values(5 * 7 * 19, 21), dims);
  for (const Symmetry symmetry : {Symmetry::symmetric, Symmetry::asymmetric, Symmetry::offset}) {
    for (const bool is_signed : {true, false}) {
      for (const Scheme& s :
           all_granularities({.bits = 4, .is_signed = is_signed, .symmetry = symmetry})) {
        SCOPED_TRACE(s.describe());
        const QuantParams params = minmax_params(x, s);
        const Dims shape = scale_dims(dims, s);
        ASSERT_EQ(params.scale.dims(), shape);
        const std::vector<Tensor> units = values_by_unit(x, s, num_elements(shape));
        const std::vector<int64_t> codes = quantize(x, params).to_ints();
        const std::vector<float> back = fake_quant(x, params).to_floats();
        std::vector<ScaleZeroPoint> expected;
        for (const Tensor& unit : units) {
          const auto v = unit.data<float>();
          const auto [low, high] = std::minmax_element(v.begin(), v.end());
          expected.push_back(choose_params(*low, *high, s));
        }
        for (int64_t i = 0; i < x.elements(); ++i) {
          const auto u = static_cast<size_t>(unit_of(i, dims, s));
          const ScaleZeroPoint& p = expected[u];
          const auto e = static_cast<size_t>(i);
          ASSERT_EQ(params.scale.data<float>()[u], p.scale);
          ASSERT_EQ(codes[e], quantize_value(x.data<float>()[e], p, s)) << i;
          ASSERT_EQ(back[e], dequantize_value(static_cast<int32_t>(codes[e]), p, s)) << i;
        }
      }
    }
  }
}

TEST(Quantize, unit_of_follows_the_shapes_of_onnx) {
  const Dims dims = {4, 6, 5};
  const auto unit = [&](Granularity g, int64_t axis, int64_t group, int64_t a, int64_t b,
                        int64_t c) {
    return unit_of((a * 6 + b) * 5 + c, dims,
                   {.granularity = g, .axis = axis, .group_size = group});
  };
  for (int64_t a = 0; a < 4; ++a) {
    for (int64_t b = 0; b < 6; ++b) {
      for (int64_t c = 0; c < 5; ++c) {
        EXPECT_EQ(unit(Granularity::per_tensor, 0, 0, a, b, c), 0);
        EXPECT_EQ(unit(Granularity::per_axis, 1, 0, a, b, c), b);
        EXPECT_EQ(unit(Granularity::per_axis, -1, 0, a, b, c), c);
        EXPECT_EQ(unit(Granularity::per_token, 0, 0, a, b, c), a * 6 + b);
        EXPECT_EQ(unit(Granularity::per_group, 1, 4, a, b, c), (a * 2 + b / 4) * 5 + c);
        EXPECT_EQ(unit(Granularity::per_group, 2, 2, a, b, c), (a * 6 + b) * 3 + c / 2);
        EXPECT_EQ(unit(Granularity::per_group, 0, 3, a, b, c), (a / 3 * 6 + b) * 5 + c);
      }
    }
  }
  EXPECT_EQ(scale_dims(dims, {.granularity = Granularity::per_group, .axis = 1, .group_size = 4}),
            (Dims{4, 2, 5}));
  EXPECT_EQ(scale_dims(dims, {.granularity = Granularity::per_token}), (Dims{4, 6}));
  EXPECT_EQ(scale_dims(dims, {.granularity = Granularity::per_axis, .axis = -2}), (Dims{6}));
  EXPECT_EQ(scale_dims(dims, {}), Dims{});
}

TEST(Quantize, is_idempotent_on_tensors) {
  const Tensor x = Tensor::from(normal_values(3 * 8 * 32, 4), {3, 8, 32});
  for (Scheme s : all_grids()) {
    s.granularity = Granularity::per_group;
    s.axis = 2;
    s.group_size = 24;
    const QuantParams params = minmax_params(x, s);
    const Tensor once = fake_quant(x, params);
    EXPECT_TRUE(identical(fake_quant(once, params), once)) << s.describe();
    EXPECT_TRUE(identical(quantize(once, params), quantize(x, params))) << s.describe();
  }
}

TEST(Quantize, does_not_depend_on_the_number_of_threads) {
  // More than one parallel block, and not a whole number of them.
  const Tensor x = Tensor::from(normal_values(3 * 211 * 333, 9), {3, 211, 333});
  for (const Scheme& s : all_granularities({.bits = 4, .symmetry = Symmetry::asymmetric})) {
    std::vector<Tensor> codes;
    std::vector<Tensor> scales;
    for (const int threads : {1, 3}) {
      const ThreadLimit limit(threads);
      const QuantParams params = minmax_params(x, s);
      scales.push_back(params.scale);
      codes.push_back(quantize(x, params));
    }
    EXPECT_TRUE(identical(codes[0], codes[1])) << s.describe();
    EXPECT_TRUE(identical(scales[0], scales[1])) << s.describe();
  }
}

TEST(Quantize, names_the_first_value_that_is_not_finite) {
  std::vector<float> values = normal_values(200000, 2);
  Tensor x = Tensor::vector(values);
  const QuantParams params = minmax_params(x, {});
  values[150001] = kInf;
  values[150000] = kNaN;
  x = Tensor::vector(values);
  for (const auto& attempt : {std::function<void()>([&] { minmax_params(x, {}); }),
                              std::function<void()>([&] { quantize(x, params); }),
                              std::function<void()>([&] { fake_quant(x, params); })}) {
    try {
      attempt();
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::numeric_failure);
      EXPECT_NE(e.message().find("element 150000 is nan"), std::string::npos) << e.message();
    }
  }
  const std::vector<int64_t> codes = quantize(x, params, NonFinite::map).to_ints();
  EXPECT_EQ(codes[150000], 0);
  EXPECT_EQ(codes[150001], 127);
}

TEST(Quantize, an_all_zero_group_has_scale_1_and_zero_codes) {
  Tensor x(DType::float32, {2, 8});
  for (int i = 8; i < 16; ++i) x.mutable_data<float>()[i] = static_cast<float>(i);
  for (Scheme s : all_grids()) {
    s.granularity = Granularity::per_axis;
    const QuantParams params = minmax_params(x, s);
    EXPECT_EQ(params.scale.data<float>()[0], 1.0f) << s.describe();
    const std::vector<float> y = fake_quant(x, params).to_floats();
    EXPECT_TRUE(std::all_of(y.begin(), y.begin() + 8, [](float v) { return v == 0; }));
  }
}

TEST(Quantize, empty_tensors_and_scalars) {
  const Tensor empty(DType::float32, {0, 3});
  for (const Granularity g : {Granularity::per_tensor, Granularity::per_axis,
                              Granularity::per_group, Granularity::per_token}) {
    const Scheme s{.granularity = g, .axis = 1, .group_size = 2};
    const QuantParams params = minmax_params(empty, s);
    EXPECT_EQ(params.scale.dims(), scale_dims(empty.dims(), s));
    EXPECT_EQ(quantize(empty, params).elements(), 0);
  }
  const Tensor scalar = Tensor::scalar(-2.0f);
  const QuantParams params = minmax_params(scalar, {});
  EXPECT_EQ(quantize(scalar, params).to_ints(), std::vector<int64_t>{-127});
  EXPECT_EQ(fake_quant(scalar, params).item<float>(), -2.0f);
}

TEST(Quantize, refuses_parameters_of_another_shape) {
  const Tensor x = Tensor::from(normal_values(12, 1), {3, 4});
  QuantParams params = minmax_params(x, {.granularity = Granularity::per_axis});
  EXPECT_NO_THROW(quantize(x, params));
  params.scheme.axis = 1;
  EXPECT_THROW(quantize(x, params), Error);
  params.scheme.granularity = Granularity::per_tensor;
  EXPECT_THROW(dequantize(Tensor(DType::int8, {3, 4}), params), Error);
  EXPECT_THROW(quantize(x, QuantParams{}), Error);
  EXPECT_THROW(minmax_params(Tensor(DType::int8, {3}), {}), Error);
  EXPECT_THROW(minmax_params(x, {.granularity = Granularity::per_axis, .axis = 2}), Error);
}

TEST(ParamsFromRanges, has_one_unit_per_range) {
  const Scheme s{
      .is_signed = false, .symmetry = Symmetry::asymmetric, .granularity = Granularity::per_axis};
  const std::vector<float> rmin = {-2, 0, 1};
  const std::vector<float> rmax = {1, 0, 2};
  const QuantParams p = params_from_ranges(rmin, rmax, {3}, s);
  EXPECT_EQ(p.scale.to_floats(), (std::vector<float>{3.0f / 255, 1.0f, 2.0f / 255}));
  EXPECT_EQ(p.zero_point.to_ints(), (std::vector<int64_t>{170, 0, 0}));
  EXPECT_THROW(params_from_ranges(rmin, rmax, {4}, s), Error);
  const std::vector<float> one = {1};
  EXPECT_THROW(params_from_ranges(rmin, one, {3}, s), Error);
}

}  // namespace
}  // namespace narrow
