// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/tables.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "golden.h"
#include "narrow/core/error.h"
#include "narrow/core/hash.h"
#include "narrow/quant/quantize.h"
#include "narrow/quant/requantize.h"

namespace narrow {
namespace {

const std::vector<std::string> kOperators = {
    "Identity",  "Relu",     "LeakyRelu", "ThresholdedRelu",
    "Clip",      "Sigmoid",  "Tanh",      "HardSigmoid",
    "HardSwish", "Elu",      "Selu",      "Celu",
    "Softplus",  "Softsign", "Gelu",      "Mish",
    "Swish",     "Exp",      "Log",       "Sqrt",
    "Abs",       "Neg",      "Erf",       "Reciprocal",
    "Floor",     "Ceil",     "Round",     "Sign",
    "Pow",       "Add",      "Sub",       "Mul",
    "Div",       "PRelu",    "Min",       "Max"};

CodeGrid grid_of(const Scheme& s, const ScaleZeroPoint& p) {
  return {.dtype = s.storage(), .scale = p.scale, .zero_point = p.zero_point};
}

TEST(UnaryFunction, knows_the_operators_of_onnx) {
  std::set<UnaryKind> kinds;
  for (const std::string& op : kOperators) {
    ASSERT_TRUE(unary_function(op)) << op;
    kinds.insert(unary_function(op)->kind);
  }
  EXPECT_GE(kinds.size(), 33u);
  EXPECT_FALSE(unary_function("Conv"));
  EXPECT_FALSE(unary_function(""));
}

TEST(UnaryFunction, every_kind_has_its_own_name) {
  std::set<std::string> names;
  for (int k = 0; k <= static_cast<int>(UnaryKind::reverse_divide); ++k) {
    EXPECT_TRUE(names.insert(to_string(static_cast<UnaryKind>(k))).second);
  }
}

TEST(UnaryFunction, values_at_chosen_points) {
  const auto at = [](const char* op, double x) { return evaluate(*unary_function(op), x); };
  EXPECT_EQ(at("Relu", -1), 0);
  EXPECT_EQ(at("Relu", 2), 2);
  EXPECT_NEAR(at("LeakyRelu", -1), -0.01, 1e-9);
  EXPECT_EQ(at("ThresholdedRelu", 1), 0);
  EXPECT_EQ(at("ThresholdedRelu", 1.5), 1.5);
  EXPECT_EQ(at("HardSwish", -3), 0);
  EXPECT_EQ(at("HardSwish", 3), 3);
  EXPECT_NEAR(at("HardSwish", 1), 4.0 / 6, 1e-15);
  EXPECT_EQ(at("HardSigmoid", -2.6), 0);
  EXPECT_EQ(at("HardSigmoid", 2.6), 1);
  EXPECT_EQ(at("HardSigmoid", 0), 0.5);
  EXPECT_NEAR(at("Elu", -1), std::exp(-1) - 1, 1e-15);
  EXPECT_NEAR(at("Selu", -1), 1.05070102 * 1.67326319 * (std::exp(-1) - 1), 1e-7);
  EXPECT_NEAR(at("Gelu", -1), -0.5 * (1 + std::erf(-1 / std::sqrt(2))), 1e-15);
  EXPECT_NEAR(at("Mish", 1), std::tanh(std::log1p(std::exp(1))), 1e-15);
  EXPECT_NEAR(at("Swish", 2), 2 / (1 + std::exp(-2)), 1e-15);
  EXPECT_EQ(at("Softsign", -1), -0.5);
  EXPECT_EQ(at("Round", 2.5), 2);
  EXPECT_EQ(at("Round", -1.5), -2);
  EXPECT_EQ(at("Sign", -7), -1);
  EXPECT_EQ(at("Sign", 0), 0);
  EXPECT_EQ(at("Clip", 1e30), 1e30);
  EXPECT_EQ(evaluate({UnaryKind::clip, -1, 6}, 7), 6);
  EXPECT_EQ(evaluate({UnaryKind::clip, -1, 6}, -7), -1);
  EXPECT_EQ(evaluate({UnaryKind::pow, 3}, -2), -8);
  EXPECT_EQ(evaluate({UnaryKind::add, 3}, -2), 1);
  EXPECT_EQ(evaluate({UnaryKind::subtract, 3}, -2), -5);
  EXPECT_EQ(evaluate({UnaryKind::reverse_subtract, 3}, -2), 5);
  EXPECT_EQ(evaluate({UnaryKind::multiply, 3}, -2), -6);
  EXPECT_EQ(evaluate({UnaryKind::divide, 4}, -2), -0.5);
  EXPECT_EQ(evaluate({UnaryKind::reverse_divide, 3}, -2), -1.5);
  EXPECT_NEAR(evaluate({UnaryKind::celu, 2}, -1), 2 * (std::exp(-0.5) - 1), 1e-15);
  EXPECT_NEAR(evaluate({UnaryKind::gelu_tanh}, 1), 0.8411919906, 1e-9);
}

TEST(MakeTable, without_a_function_equals_dequantize_then_quantize) {
  for (const bool signed_in : {true, false}) {
    for (const bool signed_out : {true, false}) {
      const Scheme sx{.is_signed = signed_in, .symmetry = Symmetry::asymmetric};
      const Scheme sy{.is_signed = signed_out, .symmetry = Symmetry::asymmetric};
      const ScaleZeroPoint px = choose_params(-3, 5, sx);
      const ScaleZeroPoint py = choose_params(-1, 2.5f, sy);
      const Tensor table = make_table(grid_of(sx, px), {}, grid_of(sy, py));
      ASSERT_EQ(table.dims(), Dims{256});
      ASSERT_EQ(table.dtype(), sy.storage());
      for (int32_t code = sx.qmin(); code <= sx.qmax(); ++code) {
        const int32_t expected = quantize_value(dequantize_value(code, px, sx), py, sy);
        EXPECT_EQ(table.to_ints()[static_cast<uint8_t>(code)], expected) << code;
      }
    }
  }
}

TEST(MakeTable, a_chain_is_one_rounding) {
  const CodeGrid x{.dtype = DType::int8, .scale = 0.02f, .zero_point = -3};
  const CodeGrid y{.dtype = DType::uint8, .scale = 0.01f, .zero_point = 7};
  const std::vector<UnaryFunction> chain = {
      {UnaryKind::multiply, 1.7}, {UnaryKind::add, 0.1}, {UnaryKind::sigmoid}};
  const std::vector<int64_t> table = make_table(x, chain, y).to_ints();
  for (int code = -128; code < 128; ++code) {
    const double v = static_cast<double>(0.02f * static_cast<float>(code + 3)) * 1.7 + 0.1;
    const float s = static_cast<float>(1 / (1 + std::exp(-v)));
    const float position = s / 0.01f;
    if (std::fabs(position - std::floor(position) - 0.5f) < 1e-4f) continue;  // libm may differ
    EXPECT_EQ(table[static_cast<uint8_t>(code)], std::lround(position) + 7) << code;
  }
}

TEST(MakeTable, keeps_the_limits_of_narrow_ranges) {
  CodeGrid y{.dtype = DType::int8, .scale = 0.001f, .qmin = -127, .qmax = 100};
  const CodeGrid x{.dtype = DType::int8, .scale = 1};
  const std::vector<int64_t> table = make_table(x, {}, y).to_ints();
  EXPECT_EQ(table[128], -127);
  EXPECT_EQ(table[127], 100);
  EXPECT_EQ(table[0], 0);
}

TEST(MakeTable, nan_gives_the_zero_point_and_infinity_saturates) {
  const CodeGrid x{.dtype = DType::int8, .scale = 1};
  const CodeGrid y{.dtype = DType::int8, .scale = 0.1f, .zero_point = 5};
  const std::vector<UnaryFunction> log = {{UnaryKind::log}};
  const std::vector<int64_t> table = make_table(x, log, y).to_ints();
  EXPECT_EQ(table[static_cast<uint8_t>(-1)], 5);
  EXPECT_EQ(table[0], -128);
  EXPECT_EQ(table[1], 5);
}

TEST(MakeTable, refuses_other_grids) {
  const CodeGrid good;
  EXPECT_THROW(make_table({.dtype = DType::int4}, {}, good), Error);
  EXPECT_THROW(make_table({.dtype = DType::uint16}, {}, good), Error);
  EXPECT_THROW(make_table({.zero_point = 256}, {}, good), Error);
  EXPECT_THROW(make_table({.zero_point = -1}, {}, good), Error);
  EXPECT_THROW(make_table(good, {}, {.qmin = 10, .qmax = 5}), Error);
  EXPECT_THROW(make_table(good, {}, {.qmax = 256}), Error);
  EXPECT_THROW(make_table({.scale = std::nanf("")}, {}, good), Error);
}

TEST(MakeTable, agrees_with_onnxruntime) {
  const auto cases = golden::read("table");
  ASSERT_EQ(cases.size(), 26u);
  for (const golden::Case& c : cases) {
    const std::string op = c.words("function")[0];
    SCOPED_TRACE(op);
    UnaryFunction f = op == "GeluTanh" ? UnaryFunction{UnaryKind::gelu_tanh} : *unary_function(op);
    const std::string alpha = c.words("function")[1];
    const auto float_of = [](const std::string& hex) {
      return std::bit_cast<float>(static_cast<uint32_t>(std::stoul(hex, nullptr, 16)));
    };
    if (alpha != "-") f.alpha = static_cast<double>(float_of(alpha));
    const auto& g = c.words("grids");
    const CodeGrid x{
        g[0] == "1" ? DType::int8 : DType::uint8, float_of(g[1]), std::stoi(g[2]), {}, {}};
    const CodeGrid y{
        g[3] == "1" ? DType::int8 : DType::uint8, float_of(g[4]), std::stoi(g[5]), {}, {}};
    const std::vector<int64_t> table = make_table(x, {&f, 1}, y).to_ints();
    const std::vector<int64_t> expected = c.ints("codes");
    const int lo = g[0] == "1" ? -128 : 0;
    int different = 0;
    for (int code = lo; code < lo + 256; ++code) {
      const int64_t ours = table[static_cast<uint8_t>(code)];
      const int64_t theirs = expected[static_cast<size_t>(code - lo)];
      // Its float32 functions are approximations: one step near ties.
      ASSERT_LE(std::abs(ours - theirs), 1) << code;
      different += ours != theirs ? 1 : 0;
    }
    EXPECT_LE(different, 1);
  }
}

TEST(MakeTable, has_the_same_bytes_on_every_machine) {
  Hash64 hash;
  for (const std::string& op : kOperators) {
    const UnaryFunction f = *unary_function(op);
    const Tensor table =
        make_table({.dtype = DType::int8, .scale = 0.037f, .zero_point = -5}, {&f, 1},
                   {.dtype = DType::uint8, .scale = 0.021f, .zero_point = 40});
    hash.add(table.raw(), table.bytes());
  }
  EXPECT_EQ(hash.hex(), "0acc5f0b201ad228");
}

TEST(MakeRequantizeTable, equals_the_integer_definition) {
  const CodeGrid x{.dtype = DType::uint8, .scale = 0.1f, .zero_point = 17};
  const CodeGrid y{.dtype = DType::int8, .scale = 0.033f, .zero_point = -4};
  const std::vector<int64_t> table = make_requantize_table(x, y).to_ints();
  const float m = requant_multiplier(0.1f, 0.033f);
  for (int code = 0; code < 256; ++code) {
    EXPECT_EQ(table[static_cast<size_t>(code)], requantize(code - 17, m, -4, -128, 127));
  }
}

TEST(MakeRequantizeTable, is_the_identity_between_equal_grids) {
  const CodeGrid g{.dtype = DType::int8, .scale = 0.3f, .zero_point = 9};
  const std::vector<int64_t> table = make_requantize_table(g, g).to_ints();
  for (int code = -128; code < 128; ++code) EXPECT_EQ(table[static_cast<uint8_t>(code)], code);
}

}  // namespace
}  // namespace narrow
