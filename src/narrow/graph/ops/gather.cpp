// SPDX-License-Identifier: Apache-2.0
// Operators that select elements by index or by value.
#include <fmt/format.h>

#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

/// Elements of a small vector (or of the rows of a small matrix) by known indices.
void propagate_gather(InferContext& c, size_t axis) {
  const auto value = c.value(0);
  const auto indices = c.value(1);
  if (!value || !indices || axis != 0 || value->dims.empty()) return;
  const int64_t rows = value->dims[0];
  const int64_t row = num_elements(value->dims, 1, value->dims.size());
  std::vector<int64_t> flat;
  for (const KnownElement& e : indices->elements) {
    if (!e.is_integer()) return;
    if (e.integer < -rows || e.integer >= rows) {
      c.fail(fmt::format("index {} is outside {} elements", e.integer, rows));
    }
    const int64_t begin = (e.integer < 0 ? e.integer + rows : e.integer) * row;
    for (int64_t i = 0; i < row; ++i) flat.push_back(begin + i);
    if (flat.size() > KnownValue::kMaxElements) return;
  }
  Dims dims = indices->dims;
  dims.insert(dims.end(), value->dims.begin() + 1, value->dims.end());
  move_elements(c, *value, std::move(dims), flat);
}

void infer_gather(InferContext& c) {
  require_min_rank(c, 0, 1);
  require_integer(c, 1);
  const SymbolicShape* x = c.shape(0);
  const SymbolicShape* indices = c.shape(1);
  if (!x || !indices) return c.set_output(0, c.dtype(0), std::nullopt);
  const size_t axis = axis_attribute(c, 0, x->size());
  SymbolicShape y(x->begin(), x->begin() + static_cast<std::ptrdiff_t>(axis));
  y.insert(y.end(), indices->begin(), indices->end());
  y.insert(y.end(), x->begin() + static_cast<std::ptrdiff_t>(axis) + 1, x->end());
  c.set_output(0, c.dtype(0), std::move(y));
  propagate_gather(c, axis);
}

void infer_gather_elements(InferContext& c) {
  require_integer(c, 1);
  const SymbolicShape* x = c.shape(0);
  const SymbolicShape* indices = c.shape(1);
  if (x && indices && x->size() != indices->size()) {
    c.fail(
        fmt::format("data {} and indices {} differ in rank", to_string(*x), to_string(*indices)));
  }
  if (x) axis_attribute(c, 0, x->size());
  c.set_output(0, c.dtype(0), indices ? std::optional(*indices) : std::nullopt);
}

void infer_gather_nd(InferContext& c) {
  require_min_rank(c, 0, 1);
  require_min_rank(c, 1, 1);
  require_integer(c, 1);
  const SymbolicShape* x = c.shape(0);
  const SymbolicShape* indices = c.shape(1);
  const int64_t batch = c.node().int_or("batch_dims", 0);
  if (!x || !indices || !indices->back().known()) {
    return c.set_output(0, c.dtype(0), std::nullopt);
  }
  const int64_t depth = indices->back().value;
  const auto rank = static_cast<int64_t>(x->size());
  if (batch < 0 || batch >= static_cast<int64_t>(indices->size()) || batch > rank || depth < 1 ||
      depth > rank - batch) {
    c.fail(fmt::format("indices {} with batch_dims {} do not fit data {}", to_string(*indices),
                       batch, to_string(*x)));
  }
  SymbolicShape y(indices->begin(), indices->end() - 1);
  y.insert(y.end(), x->begin() + batch + depth, x->end());
  c.set_output(0, c.dtype(0), std::move(y));
}

/// ScatterElements, ScatterND: data with some elements replaced.
void infer_scatter(InferContext& c) {
  require_min_rank(c, 0, 1);
  require_integer(c, 1);
  require_same_dtype(c, 0, 2);
  if (const SymbolicShape* x = c.shape(0)) axis_attribute(c, 0, x->size());
  infer_same(c);
}

void infer_one_hot(InferContext& c) {
  const SymbolicShape* indices = c.shape(0);
  if (!indices) return c.set_output(0, c.dtype(2), std::nullopt);
  const size_t axis = axis_attribute(c, -1, indices->size() + 1);
  Dim depth;
  if (const auto value = c.value(1); value && value->elements.size() == 1) {
    const KnownElement& e = value->elements[0];
    depth = e.is_real() ? Dim(static_cast<int64_t>(e.real)) : e.dim();
    if (e.is_integer() && e.integer < 0) c.fail(fmt::format("depth is {}", e.integer));
  }
  SymbolicShape y = *indices;
  y.insert(y.begin() + static_cast<std::ptrdiff_t>(axis), depth);
  c.set_output(0, c.dtype(2), std::move(y));
}

/// One column for each element that is not zero.
void infer_non_zero(InferContext& c) {
  SymbolicShape y(2);
  if (const SymbolicShape* x = c.shape(0)) {
    y[0] = x->empty() ? Dim(1) : Dim(static_cast<int64_t>(x->size()));
  }
  c.set_output(0, DType::int64, std::move(y));
}

void infer_top_k(InferContext& c) {
  require_min_rank(c, 0, 1);
  const SymbolicShape* x = c.shape(0);
  if (!x) {
    c.set_output(0, c.dtype(0), std::nullopt);
    c.set_output(1, DType::int64, std::nullopt);
    return;
  }
  const size_t axis = axis_attribute(c, -1, x->size());
  SymbolicShape y = *x;
  const auto k = c.value(1);
  if (k && k->elements.size() != 1) c.fail("k is not a single number");
  y[axis] = k ? k->elements[0].dim() : Dim();
  if (k && k->elements[0].is_integer()) {
    const int64_t wanted = k->elements[0].integer;
    if (wanted < 0 || ((*x)[axis].known() && wanted > (*x)[axis].value)) {
      c.fail(fmt::format("k is {} along axis {} of {}", wanted, axis, to_string(*x)));
    }
  }
  c.set_output(0, c.dtype(0), y);
  c.set_output(1, DType::int64, std::move(y));
}

void infer_unique(InferContext& c) {
  const SymbolicShape* x = c.shape(0);
  if (!c.node().has("axis")) {
    c.set_output(0, c.dtype(0), unknown_shape(1));
  } else if (x) {
    SymbolicShape y = *x;
    y[axis_attribute(c, 0, x->size())] = Dim();
    c.set_output(0, c.dtype(0), std::move(y));
  } else {
    c.set_output(0, c.dtype(0), std::nullopt);
  }
  for (size_t i = 1; i < 4; ++i) c.set_output(i, DType::int64, unknown_shape(1));
}

void infer_compress(InferContext& c) {
  require_rank(c, 1, 1);
  const SymbolicShape* x = c.shape(0);
  if (!c.node().has("axis")) return c.set_output(0, c.dtype(0), unknown_shape(1));
  if (!x) return c.set_output(0, c.dtype(0), std::nullopt);
  SymbolicShape y = *x;
  y[axis_attribute(c, 0, x->size())] = Dim();
  c.set_output(0, c.dtype(0), std::move(y));
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "Gather", 2, 2, 1, 1, 1, infer_gather},
    {"", "GatherElements", 2, 2, 1, 1, 11, infer_gather_elements},
    {"", "GatherND", 2, 2, 1, 1, 11, infer_gather_nd},
    {"", "ScatterElements", 3, 3, 1, 1, 11, infer_scatter},
    {"", "ScatterND", 3, 3, 1, 1, 11, infer_scatter},
    {"", "OneHot", 3, 3, 1, 1, 9, infer_one_hot},
    {"", "NonZero", 1, 1, 1, 1, 9, infer_non_zero},
    {"", "TopK", 2, 2, 2, 2, 10, infer_top_k},
    {"", "Unique", 1, 1, 1, 4, 11, infer_unique},
    {"", "Compress", 2, 2, 1, 1, 9, infer_compress},
};

}  // namespace

std::span<const OpInfo> gather_ops() {
  return kOps;
}

}  // namespace narrow::ops
