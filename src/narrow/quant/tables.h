// SPDX-License-Identifier: Apache-2.0
// Lookup tables for unary functions between two grids of 8-bit codes (the operator QLookup):
//   v = chain(double(float32 dequantized code)), code_y = clamp(rne(float32(v) / s_y) + z_y).
// The functions are our own portable ones, so that a table has the same bytes on every machine.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "narrow/core/tensor.h"

namespace narrow {

enum class UnaryKind : uint8_t {
  identity,
  relu,
  leaky_relu,        // alpha x below 0; also PRelu with one slope
  thresholded_relu,  // x above alpha, else 0
  clip,              // [alpha, beta]
  sigmoid,
  tanh,
  hard_sigmoid,  // clip(alpha x + beta, 0, 1)
  hard_swish,
  elu,   // alpha
  selu,  // alpha, beta (gamma)
  celu,  // alpha
  softplus,
  softsign,
  gelu_erf,
  gelu_tanh,
  mish,
  swish,  // x sigmoid(alpha x)
  exp,
  log,
  sqrt,
  abs,
  neg,
  erf,
  reciprocal,
  floor,
  ceil,
  round,  // half to even
  sign,
  pow,               // x^alpha
  add,               // x + alpha
  subtract,          // x - alpha
  reverse_subtract,  // alpha - x
  multiply,          // x alpha
  divide,            // x / alpha
  reverse_divide,    // alpha / x
};

struct UnaryFunction {
  UnaryKind kind = UnaryKind::identity;
  double alpha = 0;
  double beta = 0;
};

/// The function of an ONNX operator with ONNX's default attributes ("Gelu" is the erf form, "PRelu"
/// and "Pow" want alpha filled in; "Min" and "Max" with a constant are clips); nullopt when a table
/// has no such function. Binary operators with a constant second operand: "Add", "Sub", "Mul",
/// "Div".
std::optional<UnaryFunction> unary_function(std::string_view onnx_op);
const char* to_string(UnaryKind kind);

double evaluate(const UnaryFunction& f, double x);

/// A per_tensor grid of int8 or uint8 codes.
struct CodeGrid {
  DType dtype = DType::uint8;
  float scale = 1;
  int32_t zero_point = 0;
  // Limits of the codes written; by default the dtype's own.
  std::optional<int32_t> qmin;
  std::optional<int32_t> qmax;
};

/// 256 entries of y's dtype, indexed by x's code as an unsigned byte. NaN gives y's zero_point and
/// infinities saturate. Throws invalid_argument for grids that are not of 8 bits.
Tensor make_table(const CodeGrid& x, std::span<const UnaryFunction> chain, const CodeGrid& y);

/// From one grid to another without a function, as QConcat defines it:
/// clamp(rne(float(q - z_x) * float32(double(s_x) / s_y)) + z_y).
Tensor make_requantize_table(const CodeGrid& x, const CodeGrid& y);

}  // namespace narrow
