// SPDX-License-Identifier: Apache-2.0
// Operators that move elements without looking at them: every element type by its size, every
// memory order by its strides.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

class TransposeStep final : public Step {
 public:
  TransposeStep(const Graph& graph, const Node& node) : perm_(node.ints_or("perm", {})) {
    const ValueId id = node.inputs[0];
    if (perm_.empty() && graph.value(id).shape) reverse(graph.value(id).shape->size());
  }
  /// [0, 2, 3, 1] of a channels_last image is its memory as it lies, and [0, 3, 1, 2] the reverse.
  Layout input_layout(size_t) const override {
    return is_to_last() ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override {
    return is_to_first() ? Layout::channels_last : Layout::plain;
  }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    std::vector<int64_t> perm = perm_;
    if (perm.empty()) {
      perm.resize(x.dims.size());
      std::iota(perm.rbegin(), perm.rend(), 0);
    }
    const Dims strides = memory_strides(x);
    Dims dims(perm.size());
    Dims from(perm.size());
    for (size_t i = 0; i < perm.size(); ++i) {
      const auto axis = static_cast<size_t>(normalize_axis(perm[i], x.dims.size()));
      dims[i] = x.dims[axis];
      from[i] = strides[axis];
    }
    const TensorView& y = planned_output(context, 0, dims);
    copy_strided(y.data, memory_strides(y), x.data, from, dims, element_bytes(x.dtype));
  }

 private:
  void reverse(size_t rank) {
    perm_.resize(rank);
    std::iota(perm_.rbegin(), perm_.rend(), 0);
  }
  bool is_to_last() const {
    if (perm_.size() < 3 || perm_.front() != 0 || perm_.back() != 1) return false;
    for (size_t i = 1; i + 1 < perm_.size(); ++i) {
      if (perm_[i] != static_cast<int64_t>(i) + 1) return false;
    }
    return true;
  }
  bool is_to_first() const {
    if (perm_.size() < 3 || perm_.front() != 0) return false;
    if (perm_[1] != static_cast<int64_t>(perm_.size()) - 1) return false;
    for (size_t i = 2; i < perm_.size(); ++i) {
      if (perm_[i] != static_cast<int64_t>(i) - 1) return false;
    }
    return true;
  }
  std::vector<int64_t> perm_;
};

class ConcatStep final : public Step {
 public:
  ConcatStep(const Graph&, const Node& node) : axis_(node.int_or("axis", 0)) {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    const Dims& first = context.inputs[0].dims;
    const auto axis = static_cast<size_t>(normalize_axis(axis_, first.size()));
    Dims dims = first;
    dims[axis] = 0;
    for (const TensorView& x : context.inputs) {
      require_fit(first, x.dims, axis);
      dims[axis] += x.dims[axis];
    }
    const TensorView& y = planned_output(context, 0, dims);
    const size_t bytes = element_bytes(y.dtype);
    const Dims to = memory_strides(y);
    int64_t at = 0;
    for (const TensorView& x : context.inputs) {
      if (x.elements() == 0) continue;
      copy_strided(y.data + static_cast<size_t>(at * to[axis]) * bytes, to, x.data,
                   memory_strides(x), x.dims, bytes);
      at += x.dims[axis];
    }
  }

 private:
  static void require_fit(const Dims& a, const Dims& b, size_t axis) {
    bool fits = a.size() == b.size();
    for (size_t i = 0; fits && i < a.size(); ++i) fits = i == axis || a[i] == b[i];
    if (!fits) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("shapes {} and {} cannot be joined along axis {}", to_string(a),
                              to_string(b), axis));
    }
  }
  int64_t axis_;
};

class SplitStep final : public Step {
 public:
  SplitStep(const Graph&, const Node& node)
      : axis_(node.int_or("axis", 0)),
        count_(static_cast<int64_t>(node.outputs.size())),
        used_(node.outputs.size()) {
    for (size_t i = 0; i < used_.size(); ++i) used_[i] = node.outputs[i] != kNoId;
  }
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const auto axis = static_cast<size_t>(normalize_axis(axis_, x.dims.size()));
    const Dims sizes = piece_sizes(context, x.dims[axis]);
    const Dims from = memory_strides(x);
    const size_t bytes = element_bytes(x.dtype);
    int64_t at = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      Dims dims = x.dims;
      dims[axis] = sizes[i];
      if (used_[i] && num_elements(dims) > 0) {
        const TensorView& y = planned_output(context, i, dims);
        copy_strided(y.data, memory_strides(y),
                     x.data + static_cast<size_t>(at * from[axis]) * bytes, from, dims, bytes);
      } else if (used_[i]) {
        planned_output(context, i, dims);
      }
      at += sizes[i];
    }
  }

 private:
  Dims piece_sizes(RunContext& context, int64_t extent) const {
    Dims sizes;
    if (present(context.inputs, 1)) {
      sizes = read_ints(context.inputs[1]);
    } else {  // equal pieces; the last may be smaller
      const int64_t piece = (extent + count_ - 1) / count_;
      for (int64_t i = 0; i < count_; ++i) {
        sizes.push_back(std::clamp<int64_t>(extent - i * piece, 0, piece));
      }
    }
    int64_t total = 0;
    bool valid = sizes.size() == used_.size();
    for (const int64_t size : sizes) {
      valid = valid && size >= 0 && size <= extent;
      total += valid ? size : 0;
    }
    if (!valid || total != extent) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} outputs of sizes {} do not split an extent of {}", used_.size(),
                              to_string(sizes), extent));
    }
    return sizes;
  }
  int64_t axis_;
  int64_t count_;
  std::vector<bool> used_;
};

/// Inputs (data, starts, ends, axes?, steps?).
class SliceStep final : public Step {
 public:
  SliceStep(const Graph&, const Node&) {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const Dims starts = read_ints(context.inputs[1]);
    const Dims ends = read_ints(context.inputs[2]);
    Dims axes(starts.size());
    std::iota(axes.begin(), axes.end(), 0);
    if (present(context.inputs, 3)) axes = read_ints(context.inputs[3]);
    Dims steps(starts.size(), 1);
    if (present(context.inputs, 4)) steps = read_ints(context.inputs[4]);
    if (ends.size() != starts.size() || axes.size() != starts.size() ||
        steps.size() != starts.size()) {
      throw Error(ErrorCode::invalid_argument,
                  "starts, ends, axes and steps have different lengths");
    }
    Dims dims = x.dims;
    Dims from = memory_strides(x);
    int64_t offset = 0;
    for (size_t i = 0; i < axes.size(); ++i) {
      const auto axis = static_cast<size_t>(normalize_axis(axes[i], x.dims.size()));
      const int64_t first = cut(x.dims[axis], starts[i], ends[i], steps[i], dims[axis]);
      offset += first * from[axis];
      from[axis] *= steps[i];
    }
    const TensorView& y = planned_output(context, 0, dims);
    if (y.elements() == 0) return;
    const size_t bytes = element_bytes(x.dtype);
    copy_strided(y.data, memory_strides(y), x.data + offset * static_cast<int64_t>(bytes), from,
                 dims, bytes);
  }

 private:
  /// Where the slice of an axis begins; its length goes to `length`. Python's rules.
  static int64_t cut(int64_t extent, int64_t start, int64_t end, int64_t& step, int64_t& length) {
    if (step == 0) throw Error(ErrorCode::invalid_argument, "a step of 0");
    if (extent == 0) return length = 0;
    // Longer steps than the extent all take one element; products stay small this way.
    step = std::clamp(step, -extent - 1, extent + 1);
    const bool up = step > 0;
    if (start < 0) start = start < -extent ? -1 : start + extent;
    if (end < 0) end = end < -extent ? -1 : end + extent;
    start = std::clamp<int64_t>(start, 0, up ? extent : extent - 1);
    end = std::clamp<int64_t>(end, up ? 0 : -1, extent);
    const int64_t span = up ? end - start : start - end;
    const int64_t stride = up ? step : -step;
    length = span <= 0 ? 0 : (span + stride - 1) / stride;
    return start;
  }
};

class ExpandStep final : public Step {
 public:
  ExpandStep(const Graph&, const Node&) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const Dims dims = broadcast_dims(x.dims, read_ints(context.inputs[1]));
    const TensorView& y = planned_output(context, 0, dims);
    if (y.elements() == 0) return;
    copy_strided(y.data, memory_strides(y), x.data, broadcast_strides(x, dims), dims,
                 element_bytes(x.dtype));
  }
};

class TileStep final : public Step {
 public:
  TileStep(const Graph&, const Node&) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const Dims repeats = read_ints(context.inputs[1]);
    if (repeats.size() != x.dims.size()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} repeats for a tensor of rank {}", repeats.size(), x.dims.size()));
    }
    Dims dims = x.dims;
    for (size_t i = 0; i < dims.size(); ++i) {
      const Dims pair{dims[i], repeats[i]};
      dims[i] = num_elements(pair);  // checked product
    }
    const TensorView& y = planned_output(context, 0, dims);
    if (y.elements() == 0) return;
    const Dims to = memory_strides(y);
    const Dims from = memory_strides(x);
    Dims extents;  // each axis becomes (repeat, element)
    Dims to2;
    Dims from2;
    for (size_t i = 0; i < dims.size(); ++i) {
      extents.insert(extents.end(), {repeats[i], x.dims[i]});
      to2.insert(to2.end(), {x.dims[i] * to[i], to[i]});
      from2.insert(from2.end(), {0, from[i]});
    }
    copy_strided(y.data, to2, x.data, from2, extents, element_bytes(x.dtype));
  }
};

const OpImpl kRows[] = {
    {"", "Transpose", "reference", accept_movable, make<TransposeStep>},
    {"", "Concat", "reference", accept_movable, make<ConcatStep>},
    {"", "Split", "reference", accept_movable, make<SplitStep>},
    {"", "Slice", "reference", accept_movable, make<SliceStep>},
    {"", "Expand", "reference", accept_movable, make<ExpandStep>},
    {"", "Tile", "reference", accept_movable, make<TileStep>},
};

}  // namespace

std::span<const OpImpl> movement_rows() {
  return kRows;
}

}  // namespace narrow::ops
