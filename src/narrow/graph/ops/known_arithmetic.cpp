// SPDX-License-Identifier: Apache-2.0
// Values of small tensors through elementwise operators, for shape arithmetic.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "narrow/graph/ops/infer_util.h"

namespace narrow::ops {
namespace {

using Element = KnownElement;
using Args = std::span<const Element>;

bool all(Args args, bool (Element::*is)() const) {
  return std::all_of(args.begin(), args.end(), [is](const Element& e) { return (e.*is)(); });
}

/// Results that do not fit stay unknown: the run time's wrap-around is nobody's shape.
Element narrowed(int64_t v, DType dtype) {
  if (dtype == DType::int32 && (v < integer_min(dtype) || v > integer_max(dtype))) return {};
  return Element::of(v);
}

Element divide_integers(int64_t a, int64_t b, DType dtype) {
  if (b == 0 || (a == std::numeric_limits<int64_t>::min() && b == -1)) return {};
  return narrowed(a / b, dtype);
}

/// Remainder with the sign of the divisor, as Mod without fmod.
Element modulo(int64_t a, int64_t b, DType dtype) {
  if (b == 0 || b == -1) return b == 0 ? Element() : Element::of(int64_t{0});
  const int64_t r = a % b;
  return narrowed(r != 0 && (r < 0) != (b < 0) ? r + b : r, dtype);
}

Element integer_binary(std::string_view op, int64_t a, int64_t b, DType dtype) {
  int64_t r = 0;
  if (op == "Add") return __builtin_add_overflow(a, b, &r) ? Element() : narrowed(r, dtype);
  if (op == "Sub") return __builtin_sub_overflow(a, b, &r) ? Element() : narrowed(r, dtype);
  if (op == "Mul") return __builtin_mul_overflow(a, b, &r) ? Element() : narrowed(r, dtype);
  if (op == "Div") return divide_integers(a, b, dtype);
  if (op == "Mod") return modulo(a, b, dtype);
  if (op == "Min") return Element::of(std::min(a, b));
  if (op == "Max") return Element::of(std::max(a, b));
  if (op == "And") return Element::of(int64_t{a != 0 && b != 0});
  if (op == "Or") return Element::of(int64_t{a != 0 || b != 0});
  if (op == "Xor") return Element::of(int64_t{(a != 0) != (b != 0)});
  return {};
}

Element real_binary(std::string_view op, float a, float b) {
  if (op == "Add") return Element::of_real(a + b);
  if (op == "Sub") return Element::of_real(a - b);
  if (op == "Mul") return Element::of_real(a * b);
  if (op == "Div") return Element::of_real(a / b);
  if (std::isnan(a) || std::isnan(b)) return {};
  if (op == "Min") return Element::of_real(std::min(a, b));
  if (op == "Max") return Element::of_real(std::max(a, b));
  return {};
}

template <class T>
Element compare(std::string_view op, T a, T b) {
  const auto yes = [](bool v) { return Element::of(int64_t{v}); };
  if (op == "Equal") return yes(a == b);
  if (op == "Less") return yes(a < b);
  if (op == "LessOrEqual") return yes(a <= b);
  if (op == "Greater") return yes(a > b);
  if (op == "GreaterOrEqual") return yes(a >= b);
  return {};
}

/// What holds of a dimension whose size is not known: it is at least 0 and equal to itself.
Element symbolic_binary(std::string_view op, const Element& a, const Element& b) {
  const auto is = [](const Element& e, int64_t v) { return e.is_integer() && e.integer == v; };
  if (is(b, 0) && (op == "Add" || op == "Sub")) return a;
  if (is(a, 0) && op == "Add") return b;
  if (is(b, 1) && (op == "Mul" || op == "Div")) return a;
  if (is(a, 1) && op == "Mul") return b;
  if (a.is_symbol() && a == b) {
    if (op == "Min" || op == "Max") return a;
    if (op == "Equal") return Element::of(int64_t{1});
    if (op == "Sub") return Element::of(int64_t{0});
  }
  const Element& number = a.is_integer() ? a : b;
  const Element& symbol = a.is_integer() ? b : a;
  if (number.is_integer() && symbol.is_symbol() && number.integer < 0 && op == "Equal") {
    return Element::of(int64_t{0});
  }
  return {};
}

Element binary(std::string_view op, const Element& a, const Element& b, DType in, DType out) {
  const Element both[] = {a, b};
  if (all(both, &Element::is_integer)) {
    return in != DType::boolean && out == DType::boolean
               ? compare(op, a.integer, b.integer)
               : integer_binary(op, a.integer, b.integer, in);
  }
  if (all(both, &Element::is_real)) {
    return out == DType::boolean ? compare(op, a.real, b.real) : real_binary(op, a.real, b.real);
  }
  return symbolic_binary(op, a, b);
}

Element unary(std::string_view op, const Element& a, DType dtype) {
  if (a.is_integer()) {
    if (op == "Not") return Element::of(int64_t{a.integer == 0});
    if (a.integer == std::numeric_limits<int64_t>::min()) return {};
    if (op == "Neg") return narrowed(-a.integer, dtype);
    if (op == "Abs") return narrowed(std::abs(a.integer), dtype);
    if (op == "Sign") return Element::of(int64_t{(a.integer > 0) - (a.integer < 0)});
  }
  if (a.is_real()) {
    if (op == "Neg") return Element::of_real(-a.real);
    if (op == "Abs") return Element::of_real(std::fabs(a.real));
    if (op == "Floor") return Element::of_real(std::floor(a.real));
    if (op == "Ceil") return Element::of_real(std::ceil(a.real));
    if (op == "Round") return Element::of_real(std::nearbyint(a.real));
    if (op == "Sqrt" && a.real >= 0) return Element::of_real(std::sqrt(a.real));
  }
  return {};
}

Element evaluate(std::string_view op, Args args, DType in, DType out) {
  if (op == "Where" && args.size() == 3) {
    if (args[0].is_integer()) return args[0].integer != 0 ? args[1] : args[2];
    return args[1] == args[2] ? args[1] : Element();
  }
  if (args.size() == 1) return op == "Min" || op == "Max" ? args[0] : unary(op, args[0], in);
  Element result = args[0];
  for (size_t i = 1; i < args.size(); ++i) result = binary(op, result, args[i], in, out);
  return result;
}

/// Flat index into `dims` of the element that position `flat` of the broadcast result reads.
int64_t broadcast_index(int64_t flat, std::span<const int64_t> out, std::span<const int64_t> dims) {
  int64_t index = 0;
  int64_t stride = 1;
  for (size_t i = out.size(); i-- > 0;) {
    const int64_t position = flat % out[i];
    flat /= out[i];
    if (i + dims.size() < out.size()) continue;
    const int64_t extent = dims[i + dims.size() - out.size()];
    if (extent != 1) index += position * stride;
    stride *= extent;
  }
  return index;
}

}  // namespace

void propagate_elementwise(InferContext& c) {
  const InferContext::Output& output = c.outputs()[0];
  if (!output.shape || !KnownValue::tracks(output.dtype)) return;
  const auto dims = concrete(*output.shape);
  if (!dims || num_elements(*dims) > KnownValue::kMaxElements) return;
  std::vector<KnownValue> inputs;
  for (size_t i = 0; i < c.node().inputs.size(); ++i) {
    auto value = c.value(i);
    if (!value) return;
    inputs.push_back(std::move(*value));
  }
  if (inputs.empty()) return;
  if (c.node().int_or("fmod", 0) != 0) return;  // the remainder of C, no shape uses it
  KnownValue result;
  result.dtype = output.dtype;
  result.dims = *dims;
  const int64_t count = num_elements(*dims);
  std::vector<Element> args(inputs.size());
  for (int64_t flat = 0; flat < count; ++flat) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      args[i] = inputs[i].elements[broadcast_index(flat, *dims, inputs[i].dims)];
    }
    result.elements.push_back(evaluate(c.node().op, args, inputs[0].dtype, output.dtype));
  }
  const auto useful = [](const Element& e) { return e.kind != Element::Kind::unknown; };
  if (count > 0 && std::none_of(result.elements.begin(), result.elements.end(), useful)) return;
  c.set_value(0, std::move(result));
}

}  // namespace narrow::ops
