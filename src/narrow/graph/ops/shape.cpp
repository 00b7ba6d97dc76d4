// SPDX-License-Identifier: Apache-2.0
// Shapes as values, constants and conversions of the element type.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

/// Attributes start and end clamp to the rank.
void infer_shape(InferContext& c) {
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, DType::int64, unknown_shape(1));
  const auto rank = static_cast<int64_t>(x->size());
  const auto position = [rank](int64_t p) {
    return std::clamp<int64_t>(p < 0 ? p + rank : p, 0, rank);
  };
  const int64_t start = position(c.node().int_or("start", 0));
  const int64_t end = std::max(position(c.node().int_or("end", rank)), start);
  c.set_value(0, KnownValue::from(SymbolicShape(x->begin() + start, x->begin() + end)));
}

void infer_size(InferContext& c) {
  KnownValue value;
  const SymbolicShape* x = c.shape(0);
  value.elements = {x ? KnownElement::of(product(c, *x)) : KnownElement()};
  c.set_value(0, std::move(value));
}

void infer_constant_of_shape(InferContext& c) {
  const Tensor* fill = c.node().tensor("value");
  if (fill && fill->elements() != 1) c.fail(fmt::format("value is {}", fill->describe()));
  const DType dtype = fill ? fill->dtype() : DType::float32;
  c.set_output(0, dtype, shape_from_input(c, 0));
  const auto& shape = c.outputs()[0].shape;
  const auto dims = shape ? concrete(*shape) : std::nullopt;
  if (!dims || num_elements(*dims) > KnownValue::kMaxElements || !KnownValue::tracks(dtype)) return;
  KnownValue value;
  value.dtype = dtype;
  value.dims = *dims;
  const auto filler = fill ? KnownValue::from(*fill) : std::nullopt;
  value.elements.assign(static_cast<size_t>(num_elements(*dims)),
                        filler ? filler->elements[0] : KnownElement::of_real(0));
  c.set_value(0, std::move(value));
}

/// The tensor that a Constant node stands for; undefined when it holds something else.
Tensor constant_tensor(const Node& node) {
  if (const Tensor* t = node.tensor("value")) return *t;
  if (node.has("value_float")) return Tensor::scalar(node.float_or("value_float", 0));
  if (node.has("value_int")) return Tensor::scalar(node.int_or("value_int", 0));
  if (node.has("value_floats")) return Tensor::vector(node.floats_or("value_floats", {}));
  if (node.has("value_ints")) return Tensor::vector(node.ints_or("value_ints", {}));
  return {};
}

void infer_constant(InferContext& c) {
  const Tensor t = constant_tensor(c.node());
  if (!t.defined()) c.fail("no value of a supported type");
  c.set_output(0, t.dtype(), symbolic(t.dims()));
  if (auto value = KnownValue::from(t)) c.set_value(0, std::move(*value));
}

void infer_range(InferContext& c) {
  for (size_t i = 0; i < 3; ++i) {
    require_same_dtype(c, 0, i);
    const SymbolicShape* shape = c.shape(i);
    if (shape && product(c, *shape).known() && product(c, *shape) != Dim(1)) {
      c.fail(fmt::format("input {} has shape {}, expected a scalar", i, to_string(*shape)));
    }
  }
  const auto start = c.value(0);
  const auto limit = c.value(1);
  const auto delta = c.value(2);
  c.set_output(0, c.dtype(0), unknown_shape(1));
  if (!start || !limit || !delta) return;
  const KnownElement& from = start->elements[0];
  const KnownElement& to = limit->elements[0];
  const KnownElement& step = delta->elements[0];
  if (from.is_real() && to.is_real() && step.is_real()) {
    const double count = std::ceil((static_cast<double>(to.real) - static_cast<double>(from.real)) /
                                   static_cast<double>(step.real));
    if (!(count < 1e15)) c.fail(fmt::format("a range of {} elements", count));
    return c.set_output(0, c.dtype(0), SymbolicShape{static_cast<int64_t>(std::max(count, 0.0))});
  }
  if (from.is_integer() && from.integer == 0 && step.is_integer() && step.integer == 1 &&
      to.is_symbol()) {
    return c.set_output(0, c.dtype(0), SymbolicShape{to.dim()});
  }
  if (!from.is_integer() || !to.is_integer() || !step.is_integer()) return;
  int64_t span = 0;
  if (step.integer == 0 || __builtin_sub_overflow(to.integer, from.integer, &span) ||
      step.integer == std::numeric_limits<int64_t>::min()) {
    c.fail(
        fmt::format("range from {} to {} in steps of {}", from.integer, to.integer, step.integer));
  }
  const bool runs = step.integer > 0 ? span > 0 : span < 0;
  const int64_t count = runs ? span / step.integer + (span % step.integer != 0 ? 1 : 0) : 0;
  c.set_output(0, c.dtype(0), SymbolicShape{count});
  if (count > KnownValue::kMaxElements) return;
  KnownValue value;
  value.dtype = c.dtype(0);
  value.dims = {count};
  for (int64_t i = 0; i < count; ++i) {
    value.elements.push_back(KnownElement::of(from.integer + i * step.integer));
  }
  c.set_value(0, std::move(value));
}

KnownElement cast_element(const KnownElement& e, DType to) {
  if (to == DType::float32) {
    return e.is_integer() ? KnownElement::of_real(static_cast<float>(e.integer))
           : e.is_real()  ? e
                          : KnownElement();
  }
  if (to == DType::boolean) {
    if (e.is_integer()) return KnownElement::of(int64_t{e.integer != 0});
    return e.is_real() ? KnownElement::of(int64_t{e.real != 0.0f}) : KnownElement();
  }
  if (e.is_symbol()) return e;
  int64_t v = e.integer;
  if (e.is_real()) {
    if (!(std::fabs(e.real) < 9e18f)) return {};
    v = static_cast<int64_t>(e.real);
  } else if (!e.is_integer()) {
    return {};
  }
  const bool fits = to != DType::int32 || (v >= integer_min(to) && v <= integer_max(to));
  return fits ? KnownElement::of(v) : KnownElement();
}

void cast_to(InferContext& c, DType dtype) {
  const SymbolicShape* x = c.shape(0);
  c.set_output(0, dtype, x ? std::optional(*x) : std::nullopt);
  if (!KnownValue::tracks(dtype)) return;
  auto value = c.value(0);
  if (!value) return;
  for (KnownElement& e : value->elements) e = cast_element(e, dtype);
  value->dtype = dtype;
  c.set_value(0, std::move(*value));
}

void infer_cast(InferContext& c) {
  const DType dtype = dtype_attribute(c, "to", DType::undefined);
  if (dtype == DType::undefined) c.fail("attribute to is missing");
  cast_to(c, dtype);
}

void infer_cast_like(InferContext& c) {
  cast_to(c, c.dtype(1));
}

void infer_eye_like(InferContext& c) {
  require_rank(c, 0, 2);
  infer_same(c);
  c.set_output(0, dtype_attribute(c, "dtype", c.dtype(0)), std::move(c.outputs()[0].shape));
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "Shape", 1, 1, 1, 1, 1, infer_shape},
    {"", "Size", 1, 1, 1, 1, 1, infer_size},
    {"", "ConstantOfShape", 1, 1, 1, 1, 9, infer_constant_of_shape},
    {"", "Constant", 0, 0, 1, 1, 1, infer_constant},
    {"", "Range", 3, 3, 1, 1, 11, infer_range},
    {"", "Cast", 1, 1, 1, 1, 6, infer_cast},
    {"", "CastLike", 2, 2, 1, 1, 15, infer_cast_like},
    {"", "EyeLike", 1, 1, 1, 1, 9, infer_eye_like},
};

}  // namespace

std::span<const OpInfo> shape_ops() {
  return kOps;
}

}  // namespace narrow::ops
