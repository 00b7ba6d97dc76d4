// SPDX-License-Identifier: Apache-2.0
// Operators that work element by element: unary functions, arithmetic, comparisons, logic.
#include <fmt/format.h>

#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

/// A function of floating numbers.
void infer_float_unary(InferContext& c) {
  require_float(c, 0);
  infer_same(c);
}

void infer_unary(InferContext& c) {
  infer_same(c);
  propagate_elementwise(c);
}

void infer_predicate(InferContext& c) {
  infer_same(c);
  c.set_output(0, DType::boolean, std::move(c.outputs()[0].shape));
}

/// The slope is broadcast to x, in one direction only.
void infer_prelu(InferContext& c) {
  require_same_dtype(c, 0, 1);
  set_same(c, 0, 0);
  const SymbolicShape* x = c.shape(0);
  const SymbolicShape* slope = c.shape(1);
  if (!x || !slope) return;
  const SymbolicShape both = broadcast(c, *x, *slope);
  for (size_t i = 0; i < both.size(); ++i) {
    const bool grew = both.size() != x->size() || (*x)[i] == Dim(1);
    if (grew && both[i].known() && both[i].value != 1) {
      c.fail(
          fmt::format("slope {} does not broadcast to input {}", to_string(*slope), to_string(*x)));
    }
  }
}

/// min and max are scalars.
void infer_clip(InferContext& c) {
  for (size_t i = 1; i < 3; ++i) {
    if (!c.has_input(i)) continue;
    require_same_dtype(c, 0, i);
    const SymbolicShape* shape = c.shape(i);
    if (shape && product(c, *shape).known() && product(c, *shape) != Dim(1)) {
      c.fail(fmt::format("{} has shape {}, expected a scalar", i == 1 ? "min" : "max",
                         to_string(*shape)));
    }
  }
  infer_same(c);
}

/// The exponent may have a type of its own.
void infer_pow(InferContext& c) {
  c.set_output(0, c.dtype(0), broadcast_inputs(c, 0, 2));
}

void infer_where(InferContext& c) {
  const DType condition = c.dtype(0);
  if (condition != DType::undefined && condition != DType::boolean) {
    c.fail(fmt::format("the condition is {}, expected boolean", to_string(condition)));
  }
  require_same_dtype(c, 1, 2);
  const DType dtype = c.dtype(1) != DType::undefined ? c.dtype(1) : c.dtype(2);
  c.set_output(0, dtype, broadcast_inputs(c, 0, 3));
  propagate_elementwise(c);
}

void infer_bit_shift(InferContext& c) {
  require_integer(c, 0);
  const std::string direction = c.node().string_or("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") {
    c.fail(fmt::format("direction '{}' is neither LEFT nor RIGHT", direction));
  }
  infer_broadcast(c);
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "Relu", 1, 1, 1, 1, 6, infer_unary},
    {"", "LeakyRelu", 1, 1, 1, 1, 6, infer_float_unary},
    {"", "PRelu", 2, 2, 1, 1, 9, infer_prelu},
    {"", "Elu", 1, 1, 1, 1, 6, infer_float_unary},
    {"", "Selu", 1, 1, 1, 1, 6, infer_float_unary},
    {"", "Celu", 1, 1, 1, 1, 12, infer_float_unary},
    {"", "ThresholdedRelu", 1, 1, 1, 1, 10, infer_float_unary},
    {"", "Sigmoid", 1, 1, 1, 1, 6, infer_float_unary},
    {"", "HardSigmoid", 1, 1, 1, 1, 6, infer_float_unary},
    {"", "HardSwish", 1, 1, 1, 1, 14, infer_float_unary},
    {"", "Tanh", 1, 1, 1, 1, 6, infer_float_unary},
    {"", "Softplus", 1, 1, 1, 1, 1, infer_float_unary},
    {"", "Softsign", 1, 1, 1, 1, 1, infer_float_unary},
    {"", "Gelu", 1, 1, 1, 1, 20, infer_float_unary},
    {"", "Mish", 1, 1, 1, 1, 18, infer_float_unary},
    {"", "Swish", 1, 1, 1, 1, 24, infer_float_unary},
    {"", "Shrink", 1, 1, 1, 1, 9, infer_unary},
    {"", "Erf", 1, 1, 1, 1, 9, infer_unary},
    {"", "Exp", 1, 1, 1, 1, 6, infer_float_unary},
    {"", "Log", 1, 1, 1, 1, 6, infer_float_unary},
    {"", "Sqrt", 1, 1, 1, 1, 6, infer_unary},
    {"", "Abs", 1, 1, 1, 1, 6, infer_unary},
    {"", "Neg", 1, 1, 1, 1, 6, infer_unary},
    {"", "Reciprocal", 1, 1, 1, 1, 6, infer_float_unary},
    {"", "Floor", 1, 1, 1, 1, 6, infer_unary},
    {"", "Ceil", 1, 1, 1, 1, 6, infer_unary},
    {"", "Round", 1, 1, 1, 1, 11, infer_unary},
    {"", "Sign", 1, 1, 1, 1, 9, infer_unary},
    {"", "Sin", 1, 1, 1, 1, 7, infer_float_unary},
    {"", "Cos", 1, 1, 1, 1, 7, infer_float_unary},
    {"", "Tan", 1, 1, 1, 1, 7, infer_float_unary},
    {"", "Asin", 1, 1, 1, 1, 7, infer_float_unary},
    {"", "Acos", 1, 1, 1, 1, 7, infer_float_unary},
    {"", "Atan", 1, 1, 1, 1, 7, infer_float_unary},
    {"", "Sinh", 1, 1, 1, 1, 9, infer_float_unary},
    {"", "Cosh", 1, 1, 1, 1, 9, infer_float_unary},
    {"", "Asinh", 1, 1, 1, 1, 9, infer_float_unary},
    {"", "Acosh", 1, 1, 1, 1, 9, infer_float_unary},
    {"", "Atanh", 1, 1, 1, 1, 9, infer_float_unary},
    {"", "Clip", 1, 3, 1, 1, 11, infer_clip},
    {"", "Not", 1, 1, 1, 1, 1, infer_unary},
    {"", "BitwiseNot", 1, 1, 1, 1, 18, infer_same},
    {"", "IsNaN", 1, 1, 1, 1, 9, infer_predicate},
    {"", "IsInf", 1, 1, 1, 1, 10, infer_predicate},
    {"", "Add", 2, 2, 1, 1, 7, infer_broadcast},
    {"", "Sub", 2, 2, 1, 1, 7, infer_broadcast},
    {"", "Mul", 2, 2, 1, 1, 7, infer_broadcast},
    {"", "Div", 2, 2, 1, 1, 7, infer_broadcast},
    {"", "Pow", 2, 2, 1, 1, 7, infer_pow},
    {"", "Mod", 2, 2, 1, 1, 10, infer_broadcast},
    {"", "Min", 1, -1, 1, 1, 8, infer_broadcast},
    {"", "Max", 1, -1, 1, 1, 8, infer_broadcast},
    {"", "Sum", 1, -1, 1, 1, 8, infer_broadcast},
    {"", "Mean", 1, -1, 1, 1, 8, infer_broadcast},
    {"", "And", 2, 2, 1, 1, 7, infer_broadcast},
    {"", "Or", 2, 2, 1, 1, 7, infer_broadcast},
    {"", "Xor", 2, 2, 1, 1, 7, infer_broadcast},
    {"", "BitwiseAnd", 2, 2, 1, 1, 18, infer_broadcast},
    {"", "BitwiseOr", 2, 2, 1, 1, 18, infer_broadcast},
    {"", "BitwiseXor", 2, 2, 1, 1, 18, infer_broadcast},
    {"", "BitShift", 2, 2, 1, 1, 11, infer_bit_shift},
    {"", "Equal", 2, 2, 1, 1, 7, infer_broadcast_bool},
    {"", "Less", 2, 2, 1, 1, 7, infer_broadcast_bool},
    {"", "LessOrEqual", 2, 2, 1, 1, 12, infer_broadcast_bool},
    {"", "Greater", 2, 2, 1, 1, 7, infer_broadcast_bool},
    {"", "GreaterOrEqual", 2, 2, 1, 1, 12, infer_broadcast_bool},
    {"", "Where", 3, 3, 1, 1, 9, infer_where},
};

}  // namespace

std::span<const OpInfo> elementwise_ops() {
  return kOps;
}

}  // namespace narrow::ops
