// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/quant/portable_math.h"
#include "narrow/quant/requantize.h"

namespace narrow {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kSqrtHalf = 0x1.6a09e667f3bcdp-1;
constexpr double kSqrtTwoOverPi = 0x1.9884533d43651p-1;

struct Row {
  UnaryKind kind;
  const char* name;
  const char* onnx;  // nullptr: no operator of its own
  double alpha;
  double beta;
};

// Default attributes are those of the ONNX operators.
constexpr std::array kRows = {
    Row{UnaryKind::identity, "identity", "Identity", 0, 0},
    Row{UnaryKind::relu, "relu", "Relu", 0, 0},
    Row{UnaryKind::leaky_relu, "leaky_relu", "LeakyRelu", static_cast<double>(0.01f), 0},
    Row{UnaryKind::thresholded_relu, "thresholded_relu", "ThresholdedRelu", 1, 0},
    Row{UnaryKind::clip, "clip", "Clip", -kInfinity, kInfinity},
    Row{UnaryKind::sigmoid, "sigmoid", "Sigmoid", 0, 0},
    Row{UnaryKind::tanh, "tanh", "Tanh", 0, 0},
    Row{UnaryKind::hard_sigmoid, "hard_sigmoid", "HardSigmoid", static_cast<double>(0.2f), 0.5},
    Row{UnaryKind::hard_swish, "hard_swish", "HardSwish", 0, 0},
    Row{UnaryKind::elu, "elu", "Elu", 1, 0},
    Row{UnaryKind::selu, "selu", "Selu", static_cast<double>(1.67326319217681884765625f),
        static_cast<double>(1.05070102214813232421875f)},
    Row{UnaryKind::celu, "celu", "Celu", 1, 0},
    Row{UnaryKind::softplus, "softplus", "Softplus", 0, 0},
    Row{UnaryKind::softsign, "softsign", "Softsign", 0, 0},
    Row{UnaryKind::gelu_erf, "gelu_erf", "Gelu", 0, 0},
    Row{UnaryKind::gelu_tanh, "gelu_tanh", nullptr, 0, 0},
    Row{UnaryKind::mish, "mish", "Mish", 0, 0},
    Row{UnaryKind::swish, "swish", "Swish", 1, 0},
    Row{UnaryKind::exp, "exp", "Exp", 0, 0},
    Row{UnaryKind::log, "log", "Log", 0, 0},
    Row{UnaryKind::sqrt, "sqrt", "Sqrt", 0, 0},
    Row{UnaryKind::abs, "abs", "Abs", 0, 0},
    Row{UnaryKind::neg, "neg", "Neg", 0, 0},
    Row{UnaryKind::erf, "erf", "Erf", 0, 0},
    Row{UnaryKind::reciprocal, "reciprocal", "Reciprocal", 0, 0},
    Row{UnaryKind::floor, "floor", "Floor", 0, 0},
    Row{UnaryKind::ceil, "ceil", "Ceil", 0, 0},
    Row{UnaryKind::round, "round", "Round", 0, 0},
    Row{UnaryKind::sign, "sign", "Sign", 0, 0},
    Row{UnaryKind::pow, "pow", "Pow", 1, 0},
    Row{UnaryKind::add, "add", "Add", 0, 0},
    Row{UnaryKind::subtract, "subtract", "Sub", 0, 0},
    Row{UnaryKind::reverse_subtract, "reverse_subtract", nullptr, 0, 0},
    Row{UnaryKind::multiply, "multiply", "Mul", 1, 0},
    Row{UnaryKind::divide, "divide", "Div", 1, 0},
    Row{UnaryKind::reverse_divide, "reverse_divide", nullptr, 1, 0},
};

constexpr bool rows_are_in_order() {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<size_t>(kRows[i].kind) != i) return false;
  }
  return true;
}
static_assert(rows_are_in_order());

/// Half to even for all doubles.
double round_even(double x) {
  if (!(std::fabs(x) < 0x1p52)) return x;
  return std::copysign(static_cast<double>(round_half_even_int(x)), x);
}

/// NaN passes through, unlike std::clamp's undefined answer.
double bounded(double x, double low, double high) {
  if (x < low) return low;
  return x > high ? high : x;
}

double gelu_tanh(double x) {
  // The constant of the approximation, 0.044715, is part of its definition.
  const double inner = kSqrtTwoOverPi * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1 + portable_tanh(inner));
}

double sign(double x) {
  if (x > 0) return 1;
  return x < 0 ? -1 : x;
}

void check_grid(const CodeGrid& grid, const char* which) {
  if (grid.dtype != DType::int8 && grid.dtype != DType::uint8) {
    throw Error(ErrorCode::invalid_argument, fmt::format("a table needs 8-bit codes, but {} has {}",
                                                         which, to_string(grid.dtype)));
  }
  const int64_t lo = integer_min(grid.dtype);
  const int64_t hi = integer_max(grid.dtype);
  const int64_t qmin = grid.qmin.value_or(static_cast<int32_t>(lo));
  const int64_t qmax = grid.qmax.value_or(static_cast<int32_t>(hi));
  const bool zero_fits = grid.zero_point >= lo && grid.zero_point <= hi;
  if (!zero_fits || qmin < lo || qmax > hi || qmin > qmax || !std::isfinite(grid.scale)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the grid of {} (scale {}, zero_point {}, codes [{}, {}]) is not one of"
                            " {}",
                            which, grid.scale, grid.zero_point, qmin, qmax, to_string(grid.dtype)));
  }
}

/// Fills a table: entry(code of x) is the code of y.
template <class Entry>
Tensor fill(const CodeGrid& x, const CodeGrid& y, const Entry& entry) {
  check_grid(x, "the input");
  check_grid(y, "the output");
  Tensor table(y.dtype, {256});
  std::byte* out = table.mutable_raw();
  const auto lo = static_cast<int32_t>(integer_min(x.dtype));
  for (int32_t code = lo; code < lo + 256; ++code) {
    out[static_cast<uint8_t>(code)] = static_cast<std::byte>(entry(code));
  }
  return table;
}

int32_t lowest(const CodeGrid& g) {
  return g.qmin.value_or(static_cast<int32_t>(integer_min(g.dtype)));
}
int32_t highest(const CodeGrid& g) {
  return g.qmax.value_or(static_cast<int32_t>(integer_max(g.dtype)));
}

}  // namespace

std::optional<UnaryFunction> unary_function(std::string_view onnx_op) {
  if (onnx_op == "PRelu") return UnaryFunction{UnaryKind::leaky_relu, 0, 0};
  if (onnx_op == "Min" || onnx_op == "Max")
    return UnaryFunction{UnaryKind::clip, -kInfinity, kInfinity};
  for (const Row& row : kRows) {
    if (row.onnx != nullptr && onnx_op == row.onnx) {
      return UnaryFunction{row.kind, row.alpha, row.beta};
    }
  }
  return std::nullopt;
}

const char* to_string(UnaryKind kind) {
  return kRows[static_cast<size_t>(kind)].name;
}

double evaluate(const UnaryFunction& f, double x) {
  switch (f.kind) {
    case UnaryKind::identity:
      return x;
    case UnaryKind::relu:
      return bounded(x, 0, kInfinity);
    case UnaryKind::leaky_relu:
      return x < 0 ? f.alpha * x : x;
    case UnaryKind::thresholded_relu:
      return x > f.alpha || std::isnan(x) ? x : 0;
    case UnaryKind::clip:
      return bounded(x, f.alpha, f.beta);
    case UnaryKind::sigmoid:
      return portable_sigmoid(x);
    case UnaryKind::tanh:
      return portable_tanh(x);
    case UnaryKind::hard_sigmoid:
      return bounded(f.alpha * x + f.beta, 0, 1);
    case UnaryKind::hard_swish:
      return x * bounded(x / 6 + 0.5, 0, 1);
    case UnaryKind::elu:
      return x < 0 ? f.alpha * portable_expm1(x) : x;
    case UnaryKind::selu:
      return f.beta * (x < 0 ? f.alpha * portable_expm1(x) : x);
    case UnaryKind::celu:
      return x < 0 ? f.alpha * portable_expm1(x / f.alpha) : x;
    case UnaryKind::softplus:
      return portable_softplus(x);
    case UnaryKind::softsign:
      return x / (1 + std::fabs(x));
    case UnaryKind::gelu_erf:
      return 0.5 * x * portable_erfc(-x * kSqrtHalf);
    case UnaryKind::gelu_tanh:
      return gelu_tanh(x);
    case UnaryKind::mish:
      return x * portable_tanh(portable_softplus(x));
    case UnaryKind::swish:
      return x * portable_sigmoid(f.alpha * x);
    case UnaryKind::exp:
      return portable_exp(x);
    case UnaryKind::log:
      return portable_log(x);
    case UnaryKind::sqrt:
      return std::sqrt(x);
    case UnaryKind::abs:
      return std::fabs(x);
    case UnaryKind::neg:
      return -x;
    case UnaryKind::erf:
      return portable_erf(x);
    case UnaryKind::reciprocal:
      return 1 / x;
    case UnaryKind::floor:
      return std::floor(x);
    case UnaryKind::ceil:
      return std::ceil(x);
    case UnaryKind::round:
      return round_even(x);
    case UnaryKind::sign:
      return sign(x);
    case UnaryKind::pow:
      return portable_pow(x, f.alpha);
    case UnaryKind::add:
      return x + f.alpha;
    case UnaryKind::subtract:
      return x - f.alpha;
    case UnaryKind::reverse_subtract:
      return f.alpha - x;
    case UnaryKind::multiply:
      return x * f.alpha;
    case UnaryKind::divide:
      return x / f.alpha;
    case UnaryKind::reverse_divide:
      return f.alpha / x;
  }
  return x;
}

Tensor make_table(const CodeGrid& x, std::span<const UnaryFunction> chain, const CodeGrid& y) {
  return fill(x, y, [&](int32_t code) {
    double v = static_cast<double>(x.scale * static_cast<float>(code - x.zero_point));
    for (const UnaryFunction& f : chain) v = evaluate(f, v);
    const float t = static_cast<float>(v) / y.scale;
    // NaN (the logarithm of a negative value) counts as 0, as in quantize().
    return round_to_code(std::isnan(t) ? 0.0f : t, y.zero_point, lowest(y), highest(y));
  });
}

Tensor make_requantize_table(const CodeGrid& x, const CodeGrid& y) {
  const float m = requant_multiplier(x.scale, y.scale);
  return fill(x, y, [&](int32_t code) {
    return requantize(code - x.zero_point, m, y.zero_point, lowest(y), highest(y));
  });
}

}  // namespace narrow
