// SPDX-License-Identifier: Apache-2.0
// Operators that put tensors together, take them apart, pad and resize them.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

void propagate_concat(InferContext& c) {
  const auto& shape = c.outputs()[0].shape;
  if (!shape || shape->size() != 1) return;
  KnownValue out;
  out.dtype = c.dtype(0);
  if (!KnownValue::tracks(out.dtype)) return;
  bool useful = false;
  for (size_t i = 0; i < c.node().inputs.size(); ++i) {
    const Dim& count = (*c.shape(i))[0];
    if (!count.known() || count.value > KnownValue::kMaxElements) return;
    if (const auto value = c.value(i)) {
      out.elements.insert(out.elements.end(), value->elements.begin(), value->elements.end());
      useful = true;
    } else {
      out.elements.resize(out.elements.size() + static_cast<size_t>(count.value));
    }
    if (out.elements.size() > KnownValue::kMaxElements) return;
  }
  if (!useful) return;
  out.dims = {static_cast<int64_t>(out.elements.size())};
  c.set_value(0, std::move(out));
}

void infer_concat(InferContext& c) {
  std::optional<SymbolicShape> y;
  for (size_t i = 0; i < c.node().inputs.size(); ++i) {
    require_same_dtype(c, 0, i);
    require_min_rank(c, i, 1);
    if (!c.shape(i)) return c.set_output(0, c.dtype(0), std::nullopt);
    y = y ? concatenated(c, *y, *c.shape(i), axis_attribute(c, 0, y->size())) : *c.shape(i);
  }
  if (y) axis_attribute(c, 0, y->size());
  c.set_output(0, c.dtype(0), std::move(y));
  propagate_concat(c);
}

/// Extents of the parts along the axis.
std::vector<Dim> split_parts(InferContext& c, const Dim& extent) {
  const size_t count = c.node().outputs.size();
  if (c.has_input(1)) {
    const auto parts = known_ints(c, 1);
    if (!parts) return std::vector<Dim>(count);
    if (parts->size() != count) {
      c.fail(fmt::format("{} parts for {} outputs", parts->size(), count));
    }
    Dim total = 0;
    for (const int64_t p : *parts) {
      if (p < 0) c.fail(fmt::format("a part has extent {}", p));
      total = add(c, total, p);
    }
    unify(c, total, extent, "the sum of the parts and the dimension");
    return {parts->begin(), parts->end()};
  }
  const auto wanted = c.node().int_or("num_outputs", static_cast<int64_t>(count));
  if (wanted != static_cast<int64_t>(count)) {
    c.fail(fmt::format("num_outputs is {}, the node has {} outputs", wanted, count));
  }
  if (!extent.known()) return std::vector<Dim>(count, count == 1 ? extent : Dim());
  const int64_t part = extent.value / wanted + (extent.value % wanted != 0 ? 1 : 0);
  std::vector<Dim> parts;
  int64_t left = extent.value;
  for (size_t i = 0; i < count; ++i) {
    const int64_t p = i + 1 == count ? left : std::min(part, left);
    parts.emplace_back(p);
    left -= p;
  }
  return parts;
}

void infer_split(InferContext& c) {
  require_min_rank(c, 0, 1);
  const SymbolicShape* x = c.shape(0);
  const size_t count = c.node().outputs.size();
  if (!x) {
    for (size_t i = 0; i < count; ++i) c.set_output(i, c.dtype(0), std::nullopt);
    return;
  }
  const size_t axis = axis_attribute(c, 0, x->size());
  const std::vector<Dim> parts = split_parts(c, (*x)[axis]);
  const auto value = x->size() == 1 ? c.value(0) : std::nullopt;
  size_t begin = 0;
  for (size_t i = 0; i < count; ++i) {
    SymbolicShape y = *x;
    y[axis] = parts[i];
    c.set_output(i, c.dtype(0), std::move(y));
    if (!value || !parts[i].known()) continue;
    KnownValue part;
    part.dtype = value->dtype;
    part.dims = {parts[i].value};
    const auto end = begin + static_cast<size_t>(parts[i].value);
    for (size_t e = begin; e < end; ++e) part.elements.push_back(value->elements[e]);
    begin = end;
    c.set_value(i, std::move(part));
  }
}

/// One axis of a Slice on a known extent: first element, count, step.
struct Range {
  int64_t start = 0;
  int64_t count = 0;
  int64_t step = 1;
};

Range slice_range(int64_t extent, int64_t start, int64_t end, int64_t step) {
  if (start < 0) start += extent;
  if (end < 0) end += extent;
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, extent);
    end = std::clamp<int64_t>(end, 0, extent);
    return {start, end > start ? (end - start - 1) / step + 1 : 0, step};
  }
  start = std::clamp<int64_t>(start, 0, std::max<int64_t>(extent - 1, 0));
  end = std::clamp<int64_t>(end, -1, extent - 1);
  return {start, start > end && extent > 0 ? (start - end - 1) / -step + 1 : 0, step};
}

/// What is left of a dimension whose size is not known.
Dim slice_unknown(const Dim& extent, const KnownElement& start, const KnownElement& end,
                  int64_t step) {
  constexpr int64_t kEnd = int64_t{1} << 30;  // exporters write INT32_MAX or INT64_MAX for "all"
  const bool from_start = start.is_integer() && start.integer == 0;
  const bool to_end = (end.is_integer() && end.integer >= kEnd) || end.dim() == extent;
  if (step == 1 && from_start && to_end) return extent;
  const bool backwards = start.is_integer() && (start.integer == -1 || start.integer >= kEnd) &&
                         end.is_integer() && end.integer <= -kEnd;
  return step == -1 && backwards ? extent : Dim();
}

struct SliceArguments {
  KnownValue starts;
  KnownValue ends;
  std::vector<size_t> axes;
  std::vector<int64_t> steps;
};

/// nullopt where the node cannot be followed further than its rank.
std::optional<SliceArguments> slice_arguments(InferContext& c, size_t rank) {
  const auto starts = c.value(1);
  const auto ends = c.value(2);
  if (!starts || !ends) return std::nullopt;
  const size_t count = starts->elements.size();
  std::vector<int64_t> axes;
  if (c.has_input(3)) {
    const auto known = known_ints(c, 3);
    if (!known) return std::nullopt;
    axes = *known;
  } else {
    for (size_t i = 0; i < count; ++i) axes.push_back(static_cast<int64_t>(i));
  }
  std::vector<int64_t> steps(count, 1);
  if (c.has_input(4)) {
    const auto known = known_ints(c, 4);
    if (!known) return std::nullopt;
    steps = *known;
  }
  if (ends->elements.size() != count || axes.size() != count || steps.size() != count) {
    c.fail("starts, ends, axes and steps differ in length");
  }
  constexpr int64_t kMaxStep = int64_t{1} << 62;  // so that -step is defined
  for (int64_t& step : steps) {
    if (step == 0) c.fail("a step is 0");
    step = std::clamp(step, -kMaxStep, kMaxStep);
  }
  return SliceArguments{*starts, *ends, axes_in(c, axes, rank), std::move(steps)};
}

void infer_slice(InferContext& c) {
  for (size_t i = 1; i < 5; ++i) {
    if (c.has_input(i)) require_rank(c, i, 1);
  }
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, c.dtype(0), std::nullopt);
  const auto arguments = slice_arguments(c, x->size());
  if (!arguments) return c.set_output(0, c.dtype(0), unknown_shape(x->size()));
  SymbolicShape y = *x;
  Range first;  // for values of rank 1
  for (size_t i = 0; i < arguments->axes.size(); ++i) {
    const size_t axis = arguments->axes[i];
    const KnownElement& start = arguments->starts.elements[i];
    const KnownElement& end = arguments->ends.elements[i];
    if ((*x)[axis].known() && start.is_integer() && end.is_integer()) {
      const Range r =
          slice_range((*x)[axis].value, start.integer, end.integer, arguments->steps[i]);
      y[axis] = r.count;
      first = r;
    } else {
      y[axis] = slice_unknown((*x)[axis], start, end, arguments->steps[i]);
    }
  }
  c.set_output(0, c.dtype(0), y);
  const auto value = c.value(0);
  if (!value || x->size() > 2 || arguments->axes.size() != 1 || !y[arguments->axes[0]].known()) {
    return;
  }
  // Rank 1, or rows of rank 2: what exporters write for pads.
  const size_t axis = arguments->axes[0];
  if (x->size() == 2 && axis != 0) return;
  const int64_t row = x->size() == 2 ? value->dims[1] : 1;
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < first.count; ++i) {
    for (int64_t j = 0; j < row; ++j) indices.push_back((first.start + i * first.step) * row + j);
  }
  Dims dims = value->dims;
  dims[0] = first.count;
  move_elements(c, *value, std::move(dims), indices);
}

void infer_pad(InferContext& c) {
  require_same_dtype(c, 0, 2);
  const std::string mode = c.node().string_or("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge" && mode != "wrap") {
    c.fail(fmt::format("mode '{}' is none of constant, reflect, edge, wrap", mode));
  }
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, c.dtype(0), std::nullopt);
  const auto pads = known_ints(c, 1);
  std::vector<int64_t> axes;
  if (c.has_input(3)) {
    const auto known = known_ints(c, 3);
    if (!known) return c.set_output(0, c.dtype(0), unknown_shape(x->size()));
    axes = *known;
  } else {
    for (size_t i = 0; i < x->size(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (!pads) return c.set_output(0, c.dtype(0), unknown_shape(x->size()));
  if (pads->size() != 2 * axes.size()) {
    c.fail(fmt::format("{} pads for {} axes", pads->size(), axes.size()));
  }
  SymbolicShape y = *x;
  const std::vector<size_t> positions = axes_in(c, axes, x->size());
  for (size_t i = 0; i < positions.size(); ++i) {
    const int64_t begin = (*pads)[i];
    const int64_t end = (*pads)[i + positions.size()];
    int64_t both = 0;
    if (__builtin_add_overflow(begin, end, &both)) c.fail("the pads are out of range");
    y[positions[i]] = add(c, y[positions[i]], both);
  }
  c.set_output(0, c.dtype(0), std::move(y));
}

/// A scaled extent, as ONNX defines it: rounded down, in float.
Dim scaled(InferContext& c, const Dim& extent, float scale) {
  if (!(scale > 0) || !std::isfinite(scale)) c.fail(fmt::format("scale {} is not positive", scale));
  if (scale == 1.0f || !extent.known()) return scale == 1.0f ? extent : Dim();
  const float result = std::floor(static_cast<float>(extent.value) * scale);
  if (result > 1e15f) c.fail(fmt::format("{} times {} is too large", extent.value, scale));
  return static_cast<int64_t>(result);
}

/// Sizes under keep_aspect_ratio_policy not_larger or not_smaller.
void keep_aspect_ratio(InferContext& c, SymbolicShape& y, const SymbolicShape& x,
                       const std::vector<size_t>& axes, bool not_larger) {
  float scale = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    const Dim& from = x[axes[i]];
    const Dim& to = y[axes[i]];
    if (!from.known() || !to.known() || from.value == 0) {
      for (const size_t axis : axes) y[axis] = Dim();
      return;
    }
    const float s = static_cast<float>(to.value) / static_cast<float>(from.value);
    scale = i == 0 ? s : (not_larger ? std::min(scale, s) : std::max(scale, s));
  }
  for (const size_t axis : axes) {
    const float extent = std::floor(scale * static_cast<float>(x[axis].value) + 0.5f);
    if (extent > 1e15f) c.fail("the sizes are too large");
    y[axis] = static_cast<int64_t>(extent);
  }
}

bool is_empty(const InferContext& c, size_t input) {
  const SymbolicShape* shape = c.shape(input);
  return !c.has_input(input) || (shape && shape->size() == 1 && (*shape)[0] == Dim(0));
}

void infer_resize(InferContext& c) {
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, c.dtype(0), std::nullopt);
  std::vector<int64_t> all;
  for (size_t i = 0; i < x->size(); ++i) all.push_back(static_cast<int64_t>(i));
  const std::vector<size_t> axes = axes_in(c, c.node().ints_or("axes", all), x->size());
  const bool by_scales = !is_empty(c, 2);
  if (by_scales == !is_empty(c, 3)) c.fail("exactly one of scales and sizes must be given");
  SymbolicShape y = *x;
  const auto check_count = [&](size_t count) {
    if (count != axes.size()) c.fail(fmt::format("{} entries for {} axes", count, axes.size()));
  };
  if (by_scales) {
    const auto scales = known_floats(c, 2);
    if (scales) check_count(scales->size());
    for (size_t i = 0; i < axes.size(); ++i) {
      y[axes[i]] = scales ? scaled(c, (*x)[axes[i]], (*scales)[i]) : Dim();
    }
  } else {
    const auto sizes = shape_from_input(c, 3);
    if (sizes) check_count(sizes->size());
    for (size_t i = 0; i < axes.size(); ++i) y[axes[i]] = sizes ? (*sizes)[i] : Dim();
    const std::string policy = c.node().string_or("keep_aspect_ratio_policy", "stretch");
    if (policy == "not_larger" || policy == "not_smaller") {
      keep_aspect_ratio(c, y, *x, axes, policy == "not_larger");
    } else if (policy != "stretch") {
      c.fail(fmt::format("keep_aspect_ratio_policy '{}' is not known", policy));
    }
  }
  c.set_output(0, c.dtype(0), std::move(y));
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "Concat", 1, -1, 1, 1, 4, infer_concat}, {"", "Split", 1, 2, 1, -1, 2, infer_split},
    {"", "Slice", 3, 5, 1, 1, 10, infer_slice},   {"", "Pad", 2, 4, 1, 1, 11, infer_pad},
    {"", "Resize", 1, 4, 1, 1, 11, infer_resize},
};

}  // namespace

std::span<const OpInfo> cut_ops() {
  return kOps;
}

}  // namespace narrow::ops
