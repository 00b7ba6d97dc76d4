// SPDX-License-Identifier: Apache-2.0
// Reductions along axes; canonical form has the axes as input 1.
#include <fmt/format.h>

#include <algorithm>

#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

/// Marks the reduced axes; nullopt when the axes are computed at run time.
std::optional<std::vector<bool>> reduced_axes(InferContext& c, size_t rank) {
  std::vector<bool> reduced(rank, false);
  if (c.has_input(1)) {
    require_rank(c, 1, 1);
    const auto axes = known_ints(c, 1);
    if (!axes) return std::nullopt;
    for (const size_t axis : axes_in(c, *axes, rank)) reduced[axis] = true;
    if (!axes->empty()) return reduced;
  }
  if (c.node().int_or("noop_with_empty_axes", 0) == 0) reduced.assign(rank, true);
  return reduced;
}

SymbolicShape drop_axes(const SymbolicShape& shape, const std::vector<bool>& reduced, bool keep) {
  SymbolicShape out;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!reduced[i]) {
      out.push_back(shape[i]);
    } else if (keep) {
      out.emplace_back(1);
    }
  }
  return out;
}

/// Sum, Prod, Max, Min of a small integer vector, as shape arithmetic uses them.
void propagate_reduction(InferContext& c) {
  const auto value = c.value(0);
  if (!value || value->dims.size() != 1 || value->elements.empty()) return;
  const std::string& op = c.node().op;
  const auto& elements = value->elements;
  KnownElement result = elements[0];
  for (size_t i = 1; i < elements.size(); ++i) {
    if (!result.is_integer() || !elements[i].is_integer()) return;
    const int64_t b = elements[i].integer;
    int64_t r = result.integer;
    bool overflow = false;
    if (op == "ReduceSum") {
      overflow = __builtin_add_overflow(r, b, &r);
    } else if (op == "ReduceProd") {
      overflow = __builtin_mul_overflow(r, b, &r);
    } else if (op == "ReduceMax") {
      r = std::max(r, b);
    } else {
      r = std::min(r, b);
    }
    const bool fits = value->dtype != DType::int32 ||
                      (r >= integer_min(DType::int32) && r <= integer_max(DType::int32));
    if (overflow || !fits) return;
    result = KnownElement::of(r);
  }
  if (!result.is_integer()) return;
  KnownValue out;
  out.dtype = value->dtype;
  out.dims.assign(c.outputs()[0].shape->size(), 1);
  out.elements = {result};
  c.set_value(0, std::move(out));
}

void infer_reduce(InferContext& c) {
  const bool keep = c.node().int_or("keepdims", 1) != 0;
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, c.dtype(0), std::nullopt);
  const auto reduced = reduced_axes(c, x->size());
  if (!reduced) {
    return c.set_output(0, c.dtype(0),
                        keep ? std::optional(unknown_shape(x->size())) : std::nullopt);
  }
  c.set_output(0, c.dtype(0), drop_axes(*x, *reduced, keep));
  if (std::find(reduced->begin(), reduced->end(), true) == reduced->end()) return;
  const std::string& op = c.node().op;
  if (op == "ReduceSum" || op == "ReduceProd" || op == "ReduceMax" || op == "ReduceMin") {
    propagate_reduction(c);
  }
}

void infer_arg(InferContext& c) {
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, DType::int64, std::nullopt);
  std::vector<bool> reduced(x->size(), false);
  const size_t axis = axis_attribute(c, 0, x->size());
  if ((*x)[axis] == Dim(0)) c.fail("the axis is empty");
  reduced[axis] = true;
  c.set_output(0, DType::int64, drop_axes(*x, reduced, c.node().int_or("keepdims", 1) != 0));
}

/// CumSum: the axis is input 1.
void infer_cumulative(InferContext& c) {
  infer_same(c);
  const auto axis = known_ints(c, 1);
  if (!axis || !c.shape(0)) return;
  if (axis->size() != 1) c.fail(fmt::format("axis has {} elements", axis->size()));
  axis_in(c, (*axis)[0], c.shape(0)->size());
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "ReduceSum", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ReduceMean", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ReduceMax", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ReduceMin", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ReduceProd", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ReduceL1", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ReduceL2", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ReduceLogSum", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ReduceLogSumExp", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ReduceSumSquare", 1, 2, 1, 1, 1, infer_reduce},
    {"", "ArgMax", 1, 1, 1, 1, 1, infer_arg},
    {"", "ArgMin", 1, 1, 1, 1, 1, infer_arg},
    {"", "CumSum", 2, 2, 1, 1, 11, infer_cumulative},
    {"", "CumProd", 2, 2, 1, 1, 26, infer_cumulative},
};

}  // namespace

std::span<const OpInfo> reduction_ops() {
  return kOps;
}

}  // namespace narrow::ops
