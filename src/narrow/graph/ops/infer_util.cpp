// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/ops/infer_util.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"

namespace narrow::ops {
namespace {

constexpr int64_t kMaxDim = int64_t{1} << 62;

std::string dim_text(const Dim& d) {
  return to_string(SymbolicShape{d});
}

}  // namespace

void set_same(InferContext& c, size_t output, size_t input) {
  const SymbolicShape* shape = c.shape(input);
  c.set_output(output, c.dtype(input), shape ? std::optional(*shape) : std::nullopt);
}

void infer_same(InferContext& c) {
  set_same(c, 0, 0);
}

void infer_dtype_only(InferContext& c) {
  c.set_output(0, c.dtype(0), std::nullopt);
}

void infer_broadcast(InferContext& c) {
  for (size_t i = 1; i < c.node().inputs.size(); ++i) require_same_dtype(c, 0, i);
  c.set_output(0, c.dtype(0), broadcast_inputs(c, 0, c.node().inputs.size()));
  propagate_elementwise(c);
}

void infer_broadcast_bool(InferContext& c) {
  for (size_t i = 1; i < c.node().inputs.size(); ++i) require_same_dtype(c, 0, i);
  c.set_output(0, DType::boolean, broadcast_inputs(c, 0, c.node().inputs.size()));
  propagate_elementwise(c);
}

SymbolicShape broadcast(const InferContext& c, const SymbolicShape& a, const SymbolicShape& b) {
  const size_t rank = std::max(a.size(), b.size());
  SymbolicShape out(rank);
  for (size_t i = 0; i < rank; ++i) {
    const Dim da = i + a.size() < rank ? Dim(1) : a[i + a.size() - rank];
    const Dim db = i + b.size() < rank ? Dim(1) : b[i + b.size() - rank];
    if (da == db || db == Dim(1)) {
      out[i] = da;
    } else if (da == Dim(1)) {
      out[i] = db;
    } else if (da.known() && db.known()) {
      c.fail(fmt::format("shapes {} and {} do not broadcast", to_string(a), to_string(b)));
    } else if (da.known() || db.known()) {
      out[i] = da.known() ? da : db;  // the unknown one is 1 or the same
    }
  }
  return out;
}

std::optional<SymbolicShape> broadcast_inputs(const InferContext& c, size_t first, size_t last) {
  SymbolicShape out;
  for (size_t i = first; i < last; ++i) {
    if (!c.has_input(i)) continue;
    if (!c.shape(i)) return std::nullopt;
    out = broadcast(c, out, *c.shape(i));
  }
  return out;
}

Dim unify(const InferContext& c, const Dim& a, const Dim& b, std::string_view what) {
  if (a.known() && b.known() && a.value != b.value) {
    c.fail(fmt::format("{}: {} and {} should be equal", what, a.value, b.value));
  }
  if (a.known()) return a;
  if (b.known()) return b;
  return a.name.empty() ? b : a;
}

SymbolicShape unify(const InferContext& c, const SymbolicShape& a, const SymbolicShape& b,
                    std::string_view what) {
  if (a.size() != b.size()) {
    c.fail(fmt::format("{}: shapes {} and {} differ in rank", what, to_string(a), to_string(b)));
  }
  SymbolicShape out;
  for (size_t i = 0; i < a.size(); ++i) out.push_back(unify(c, a[i], b[i], what));
  return out;
}

Dim add(const InferContext& c, const Dim& a, int64_t b) {
  if (b == 0 || !a.known()) return b == 0 ? a : Dim();
  int64_t sum = 0;
  if (__builtin_add_overflow(a.value, b, &sum) || sum < 0 || sum > kMaxDim) {
    c.fail(fmt::format("dimension {} {:+} is out of range", a.value, b));
  }
  return sum;
}

Dim multiply(const InferContext& c, const Dim& a, const Dim& b) {
  if (a == Dim(1)) return b;
  if (b == Dim(1)) return a;
  if (a == Dim(0) || b == Dim(0)) return 0;
  if (!a.known() || !b.known()) return {};
  int64_t result = 0;
  if (__builtin_mul_overflow(a.value, b.value, &result) || result > kMaxDim) {
    c.fail(fmt::format("dimension {} * {} is out of range", a.value, b.value));
  }
  return result;
}

Dim product(const InferContext& c, std::span<const Dim> dims) {
  Dim result = 1;
  for (const Dim& d : dims) {
    if (d == Dim(0)) return 0;
  }
  for (const Dim& d : dims) result = result == Dim() ? result : multiply(c, result, d);
  return result;
}

Dim divide(const InferContext& c, const Dim& a, int64_t b, std::string_view what) {
  if (b < 1) c.fail(fmt::format("{} is {}, must be at least 1", what, b));
  if (b == 1 || !a.known()) return b == 1 ? a : Dim();
  if (a.value % b != 0) {
    c.fail(fmt::format("{} {} does not divide dimension {}", what, b, dim_text(a)));
  }
  return a.value / b;
}

SymbolicShape concatenated(const InferContext& c, const SymbolicShape& a, const SymbolicShape& b,
                           size_t axis) {
  if (a.size() != b.size()) {
    c.fail(fmt::format("inputs {} and {} differ in rank", to_string(a), to_string(b)));
  }
  SymbolicShape out;
  for (size_t i = 0; i < a.size(); ++i) {
    if (i != axis) {
      out.push_back(unify(c, a[i], b[i], fmt::format("dimension {} of the inputs", i)));
    } else if (a[i] == Dim(0)) {
      out.push_back(b[i]);
    } else {
      out.push_back(b[i].known() ? add(c, a[i], b[i].value) : Dim());
    }
  }
  return out;
}

size_t axis_in(const InferContext& c, int64_t axis, size_t rank) {
  const auto r = static_cast<int64_t>(rank);
  if (axis < -r || axis >= r) {
    c.fail(fmt::format("axis {} is outside a tensor of rank {}", axis, rank));
  }
  return static_cast<size_t>(axis < 0 ? axis + r : axis);
}

size_t axis_attribute(const InferContext& c, int64_t fallback, size_t rank) {
  return axis_in(c, c.node().int_or("axis", fallback), rank);
}

std::vector<size_t> axes_in(const InferContext& c, std::span<const int64_t> axes, size_t rank) {
  std::vector<size_t> out;
  std::vector<bool> seen(rank, false);
  for (const int64_t axis : axes) {
    const size_t a = axis_in(c, axis, rank);
    if (seen[a]) c.fail(fmt::format("axis {} is given twice", axis));
    seen[a] = true;
    out.push_back(a);
  }
  return out;
}

std::optional<std::vector<int64_t>> known_ints(const InferContext& c, size_t input) {
  if (const Tensor* t = c.constant(input)) {
    if (!is_integer(t->dtype()) && t->dtype() != DType::boolean) {
      c.fail(fmt::format("input {} is {}, expected integers", input, t->describe()));
    }
    return t->to_ints();
  }
  return std::nullopt;
}

std::optional<std::vector<float>> known_floats(const InferContext& c, size_t input) {
  if (const Tensor* t = c.constant(input)) {
    if (!is_float(t->dtype())) {
      c.fail(fmt::format("input {} is {}, expected floats", input, t->describe()));
    }
    return t->to_floats();
  }
  return std::nullopt;
}

std::optional<SymbolicShape> shape_from_input(const InferContext& c, size_t input) {
  require_rank(c, input, 1);
  if (const auto value = c.value(input)) {
    SymbolicShape shape;
    for (const KnownElement& e : value->elements) {
      if (e.is_integer() && e.integer < 0) {
        c.fail(fmt::format("input {} holds the negative dimension {}", input, e.integer));
      }
      shape.push_back(e.dim());
    }
    return shape;
  }
  const SymbolicShape* shape = c.shape(input);
  if (shape && shape->size() == 1 && (*shape)[0].known()) {
    if ((*shape)[0].value > KnownValue::kMaxElements) {
      c.fail(fmt::format("input {} states {} dimensions", input, (*shape)[0].value));
    }
    return unknown_shape(static_cast<size_t>((*shape)[0].value));
  }
  return std::nullopt;
}

void require_rank(const InferContext& c, size_t input, size_t rank) {
  const SymbolicShape* shape = c.shape(input);
  if (shape && shape->size() != rank) {
    c.fail(fmt::format("input {} has shape {}, expected rank {}", input, to_string(*shape), rank));
  }
}

void require_min_rank(const InferContext& c, size_t input, size_t rank) {
  const SymbolicShape* shape = c.shape(input);
  if (shape && shape->size() < rank) {
    c.fail(fmt::format("input {} has shape {}, expected rank {} or more", input, to_string(*shape),
                       rank));
  }
}

void require_same_dtype(const InferContext& c, size_t a, size_t b) {
  if (!c.has_input(a) || !c.has_input(b)) return;
  const DType da = c.dtype(a);
  const DType db = c.dtype(b);
  if (da != DType::undefined && db != DType::undefined && da != db) {
    c.fail(fmt::format("inputs {} and {} are {} and {}, should be equal", a, b, to_string(da),
                       to_string(db)));
  }
}

void require_integer(const InferContext& c, size_t input) {
  const DType d = c.dtype(input);
  if (d != DType::undefined && !is_integer(d)) {
    c.fail(fmt::format("input {} is {}, expected an integer type", input, to_string(d)));
  }
}

void require_float(const InferContext& c, size_t input) {
  const DType d = c.dtype(input);
  if (d != DType::undefined && !is_float(d)) {
    c.fail(fmt::format("input {} is {}, expected a floating type", input, to_string(d)));
  }
}

DType dtype_attribute(const InferContext& c, std::string_view key, DType fallback) {
  if (!c.node().has(key)) return fallback;
  const int64_t number = c.node().int_or(key, 0);
  if (number == 0) return fallback;  // TensorProto.UNDEFINED, the default of output_dtype
  const DType dtype = dtype_from_onnx(number);
  if (dtype == DType::undefined) {
    c.fail(fmt::format("attribute '{}' is element type {}, which is not supported", key, number));
  }
  return dtype;
}

Dims dims_or_unknown(const SymbolicShape& shape) {
  Dims dims;
  for (const Dim& d : shape) dims.push_back(d.known() ? d.value : -1);
  return dims;
}

SymbolicShape unknown_shape(size_t rank) {
  return SymbolicShape(rank);
}

void move_elements(InferContext& c, const KnownValue& source, Dims dims,
                   std::span<const int64_t> indices) {
  KnownValue out;
  out.dtype = source.dtype;
  out.dims = std::move(dims);
  for (const int64_t i : indices) out.elements.push_back(source.elements[static_cast<size_t>(i)]);
  c.set_value(0, std::move(out));
}

}  // namespace narrow::ops
