// SPDX-License-Identifier: Apache-2.0
// Arithmetic, activations, reductions.

#include <cmath>
#include <limits>

#include "narrow/core/error.h"
#include "narrow/train/engine/torch.h"
#include "narrow/train/engine/torchscript/call.h"

namespace narrow::train::script {
namespace {

using Ids = std::vector<ValueId>;
using Ints = std::vector<int64_t>;

// Names of operators as template arguments.
constexpr char kAdd[] = "Add";
constexpr char kSub[] = "Sub";
constexpr char kMul[] = "Mul";
constexpr char kDiv[] = "Div";
constexpr char kPow[] = "Pow";
constexpr char kMax[] = "Max";
constexpr char kMin[] = "Min";
constexpr char kRelu[] = "Relu";
constexpr char kSigmoid[] = "Sigmoid";
constexpr char kTanh[] = "Tanh";
constexpr char kExp[] = "Exp";
constexpr char kLog[] = "Log";
constexpr char kSqrt[] = "Sqrt";
constexpr char kNeg[] = "Neg";
constexpr char kAbs[] = "Abs";
constexpr char kErf[] = "Erf";
constexpr char kReciprocal[] = "Reciprocal";
constexpr char kHardSwish[] = "HardSwish";
constexpr char kSoftplus[] = "Softplus";
constexpr char kSoftmax[] = "Softmax";
constexpr char kLogSoftmax[] = "LogSoftmax";
constexpr char kReduceMean[] = "ReduceMean";
constexpr char kReduceSum[] = "ReduceSum";
constexpr char kReduceMax[] = "ReduceMax";
constexpr char kReduceMin[] = "ReduceMin";

template <const char* Op>
Ids unary(Call& c) {
  return {c.add(Op, {c.tensor(0)})};
}

template <const char* Op>
Ids binary(Call& c) {
  return {c.add(Op, {c.operand(0, 1), c.operand(1, 0)})};
}

/// The second times alpha, where there is one.
ValueId scaled(Call& c, size_t i, size_t like) {
  const ValueId x = c.operand(i, like);
  const bool plain = c.none(2) || (c.item(2).constant() && c.number(2) == 1);
  return plain ? x : c.add("Mul", {x, c.operand(2, like)});
}
template <const char* Op>
Ids with_alpha(Call& c) {
  return {c.add(Op, {c.operand(0, 1), scaled(c, 1, 0)})};
}
Ids rsub(Call& c) {
  return {c.add("Sub", {c.operand(1, 0), scaled(c, 0, 0)})};
}

Ids divide(Call& c) {
  if (!c.none(2)) {
    const std::string& mode = c.item(2).example.toStringRef();
    const ValueId quotient = binary<kDiv>(c)[0];
    if (mode == "floor") return {c.add("Floor", {quotient})};
    throw Error(ErrorCode::unsupported, "a division that truncates");
  }
  return binary<kDiv>(c);
}
/// Of sizes, which are not negative: integers of the graph are divided towards zero.
Ids floor_divide(Call& c) {
  const ValueId quotient = binary<kDiv>(c)[0];
  const c10::IValue& example = c.item(0).example;
  const bool whole =
      example.isInt() || (example.isTensor() && !example.toTensor().is_floating_point());
  return {whole ? quotient : c.add("Floor", {quotient})};
}

Ids clip(Call& c, std::optional<double> low, std::optional<double> high) {
  return {
      c.add("Clip", {c.tensor(0), low ? c.scalar(*low) : kNoId, high ? c.scalar(*high) : kNoId})};
}
std::optional<double> bound(Call& c, size_t i) {
  if (c.none(i)) return std::nullopt;
  return c.number(i);
}
Ids relu6(Call& c) {
  return clip(c, 0, 6);
}
Ids clamp(Call& c) {
  return clip(c, bound(c, 1), bound(c, 2));
}
Ids clamp_min(Call& c) {
  return clip(c, bound(c, 1), std::nullopt);
}
Ids clamp_max(Call& c) {
  return clip(c, std::nullopt, bound(c, 1));
}

Ids hard_sigmoid(Call& c) {
  return {c.add("HardSigmoid", {c.tensor(0)}, {{"alpha", 1.0F / 6}, {"beta", 0.5F}})};
}
Ids silu(Call& c) {
  const ValueId x = c.tensor(0);
  return {c.add("Mul", {x, c.add("Sigmoid", {x})})};
}
Ids gelu(Call& c) {
  const bool tanh = !c.none(1) && c.item(1).example.toStringRef() == "tanh";
  return {c.add("Gelu", {c.tensor(0)}, {{"approximate", std::string(tanh ? "tanh" : "none")}})};
}
Ids leaky_relu(Call& c) {
  return {c.add("LeakyRelu", {c.tensor(0)}, {{"alpha", static_cast<float>(c.number(1))}})};
}
Ids elu(Call& c) {
  if (c.number(2) != 1 || c.number(3) != 1) {
    throw Error(ErrorCode::unsupported, "an ELU with scales");
  }
  return {c.add("Elu", {c.tensor(0)}, {{"alpha", static_cast<float>(c.number(1))}})};
}
Ids softplus(Call& c) {
  if (c.number(1) != 1) throw Error(ErrorCode::unsupported, "a softplus with a beta");
  return unary<kSoftplus>(c);
}
/// A slope for each channel.
Ids prelu(Call& c) {
  const int64_t slopes = c.item(1).example.toTensor().numel();
  Ints shape(static_cast<size_t>(std::max<int64_t>(1, c.rank(0) - 1)), 1);
  shape[0] = slopes;
  const ValueId slope = c.add("Reshape", {c.tensor(1, "slope"), c.int_constant(shape)});
  return {c.add("PRelu", {c.tensor(0), slope})};
}
Ids rsqrt(Call& c) {
  return {c.add("Reciprocal", {c.add("Sqrt", {c.tensor(0)})})};
}
Ids square(Call& c) {
  const ValueId x = c.tensor(0);
  return {c.add("Mul", {x, x})};
}

/// x, axis, ...
template <const char* Op>
Ids along_axis(Call& c) {
  return {c.add(Op, {c.tensor(0)}, {{"axis", c.integer(1)}})};
}

/// x, axes, keepdim; or x alone.
template <const char* Op>
Ids reduce(Call& c) {
  const bool all = c.size() < 3 || c.none(1) || c.ints(1).empty();
  const bool keep = c.size() >= 3 && c.flag(2);
  return {c.add(Op, {c.tensor(0), all ? kNoId : c.int_vector(1)},
                {{"keepdims", static_cast<int64_t>(keep)}})};
}

constexpr Conversion kTable[] = {
    {"aten::add", with_alpha<kAdd>},
    {"aten::sub", with_alpha<kSub>},
    {"aten::rsub", rsub},
    {"aten::mul", binary<kMul>},
    {"aten::div", divide},
    {"aten::true_divide", divide},
    {"aten::floordiv", floor_divide},
    {"aten::floor_divide", floor_divide},
    {"aten::pow", binary<kPow>},
    {"aten::maximum", binary<kMax>},
    {"aten::minimum", binary<kMin>},
    {"aten::relu", unary<kRelu>},
    {"aten::relu6", relu6},
    {"aten::hardtanh", clamp},
    {"aten::clamp", clamp},
    {"aten::clamp_min", clamp_min},
    {"aten::clamp_max", clamp_max},
    {"aten::sigmoid", unary<kSigmoid>},
    {"aten::tanh", unary<kTanh>},
    {"aten::exp", unary<kExp>},
    {"aten::log", unary<kLog>},
    {"aten::sqrt", unary<kSqrt>},
    {"aten::rsqrt", rsqrt},
    {"aten::square", square},
    {"aten::neg", unary<kNeg>},
    {"aten::abs", unary<kAbs>},
    {"aten::erf", unary<kErf>},
    {"aten::reciprocal", unary<kReciprocal>},
    {"aten::hardswish", unary<kHardSwish>},
    {"aten::hardsigmoid", hard_sigmoid},
    {"aten::silu", silu},
    {"aten::gelu", gelu},
    {"aten::leaky_relu", leaky_relu},
    {"aten::elu", elu},
    {"aten::softplus", softplus},
    {"aten::prelu", prelu},
    {"aten::softmax", along_axis<kSoftmax>},
    {"aten::log_softmax", along_axis<kLogSoftmax>},
    {"aten::mean", reduce<kReduceMean>},
    {"aten::sum", reduce<kReduceSum>},
    {"aten::amax", reduce<kReduceMax>},
    {"aten::amin", reduce<kReduceMin>},
};

}  // namespace

std::span<const Conversion> math_conversions() {
  return kTable;
}

}  // namespace narrow::train::script
