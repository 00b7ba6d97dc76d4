// SPDX-License-Identifier: Apache-2.0
// Pad in all modes; DepthToSpace and SpaceToDepth.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

enum class PadMode { constant, reflect, edge, wrap };

/// Elements to add (or, negative, to cut) in front of and behind each axis.
struct Pads {
  Dims begin;
  Dims end;
};

Pads pads_of(std::span<const TensorView> inputs) {
  const size_t rank = inputs[0].dims.size();
  const Dims listed = read_ints(inputs[1]);
  Pads pads{Dims(rank, 0), Dims(rank, 0)};
  Dims axes(rank);
  for (size_t i = 0; i < rank; ++i) axes[i] = static_cast<int64_t>(i);
  if (present(inputs, 3)) axes = read_ints(inputs[3]);
  if (listed.size() != 2 * axes.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} pads for {} axes", listed.size(), axes.size()));
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(normalize_axis(axes[i], rank));
    pads.begin[axis] = listed[i];
    pads.end[axis] = listed[axes.size() + i];
    constexpr int64_t kMost = int64_t{1} << 40;  // sums with extents stay far from overflow
    const auto [least, most] = std::minmax(listed[i], listed[axes.size() + i]);
    if (least < -kMost || most > kMost) {
      throw Error(ErrorCode::invalid_argument, fmt::format("pads {}", to_string(listed)));
    }
  }
  return pads;
}

/// The input position that output position o of an axis shows (n > 0).
int64_t source_of(PadMode mode, int64_t o, int64_t begin, int64_t n) {
  int64_t i = o - begin;
  switch (mode) {
    case PadMode::edge:
      return std::clamp<int64_t>(i, 0, n - 1);
    case PadMode::wrap:
      return ((i % n) + n) % n;
    default:
      break;
  }
  if (n == 1) return 0;
  const int64_t period = 2 * (n - 1);  // reflection without repeating the border
  i = ((i % period) + period) % period;
  return i < n ? i : period - i;
}

class PadStep final : public Step {
 public:
  PadStep(const Graph&, const Node& node) : mode_(mode_of(node)) {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const Pads pads = pads_of(context.inputs);
    Dims dims = x.dims;
    for (size_t i = 0; i < dims.size(); ++i) {
      dims[i] += pads.begin[i] + pads.end[i];
      if (dims[i] < 0) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("pads cut more than axis {} of {} has", i, to_string(x.dims)));
      }
    }
    const TensorView& y = planned_output(context, 0, dims);
    if (y.elements() == 0) return;
    if (mode_ == PadMode::constant) return pad_constant(context, pads, y);
    if (x.elements() == 0) {
      throw Error(ErrorCode::invalid_argument, "an empty tensor has no border to repeat");
    }
    switch (element_bytes(x.dtype)) {
      case 1:
        return pad_mapped<uint8_t>(x, pads, y);
      case 2:
        return pad_mapped<uint16_t>(x, pads, y);
      case 4:
        return pad_mapped<uint32_t>(x, pads, y);
      default:
        return pad_mapped<uint64_t>(x, pads, y);
    }
  }

  static PadMode mode_of(const Node& node) {
    const std::string mode = node.string_or("mode", "constant");
    if (mode == "reflect") return PadMode::reflect;
    if (mode == "edge") return PadMode::edge;
    return mode == "wrap" ? PadMode::wrap : PadMode::constant;
  }

 private:
  static void pad_constant(RunContext& context, const Pads& pads, const TensorView& y) {
    const TensorView& x = context.inputs[0];
    const size_t bytes = element_bytes(x.dtype);
    const std::byte zero[16] = {};
    const std::byte* value = present(context.inputs, 2) ? context.inputs[2].data : zero;
    const Dims to = memory_strides(y);
    const Dims from = memory_strides(x);
    copy_strided(y.data, to, value, Dims(to.size(), 0), y.dims, bytes);
    Dims extents = x.dims;
    int64_t src = 0;
    int64_t dst = 0;
    for (size_t i = 0; i < extents.size(); ++i) {
      src += std::max<int64_t>(-pads.begin[i], 0) * from[i];
      dst += std::max<int64_t>(pads.begin[i], 0) * to[i];
      extents[i] += std::min<int64_t>(pads.begin[i], 0) + std::min<int64_t>(pads.end[i], 0);
      if (extents[i] <= 0) return;
    }
    copy_strided(y.data + static_cast<size_t>(dst) * bytes, to,
                 x.data + static_cast<size_t>(src) * bytes, from, extents, bytes);
  }

  template <class T>
  void pad_mapped(const TensorView& x, const Pads& pads, const TensorView& y) const {
    const size_t rank = y.dims.size();
    const Dims from = memory_strides(x);
    std::vector<std::vector<int64_t>> offsets(rank);  // by axis and output position
    for (size_t i = 0; i < rank; ++i) {
      for (int64_t o = 0; o < y.dims[i]; ++o) {
        offsets[i].push_back(source_of(mode_, o, pads.begin[i], x.dims[i]) * from[i]);
      }
    }
    const Dims to = memory_strides(y);
    const size_t last = rank - 1;
    const int64_t length = y.dims[last];
    parallel_for(y.elements() / length, std::max<int64_t>(1, kBlockElements / length),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     int64_t rest = row;
                     int64_t src = 0;
                     int64_t dst = 0;
                     for (size_t i = last; i-- > 0;) {
                       const auto o = static_cast<size_t>(rest % y.dims[i]);
                       rest /= y.dims[i];
                       src += offsets[i][o];
                       dst += static_cast<int64_t>(o) * to[i];
                     }
                     for (int64_t o = 0; o < length; ++o) {
                       y.as<T>()[dst + o * to[last]] =
                           x.as<T>()[src + offsets[last][static_cast<size_t>(o)]];
                     }
                   }
                 });
  }

  PadMode mode_;
};

Refusal accept_pad(const Graph& graph, const Node& node, const StepOptions& options) {
  const std::string mode = node.string_or("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge" && mode != "wrap") {
    return "mode \"" + mode + "\"";
  }
  const auto& shape = graph.value(node.inputs[0]).shape;
  if (mode != "constant" && shape && shape->empty()) return "a scalar has no border";
  return accept_movable(graph, node, options);
}

/// Blocks of b x b pixels against b * b channels: one strided copy over (n, c, h, i, w, j).
template <bool kToDepth>
class BlockStep final : public Step {
 public:
  BlockStep(const Graph&, const Node& node)
      : block_(node.int_or("blocksize", 1)),
        column_row_depth_(node.string_or("mode", "DCR") == "CRD") {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const int64_t square = block_ * block_;
    Dims dims = x.dims;
    const bool fits =
        dims.size() == 4 && block_ > 0 &&
        (kToDepth ? dims[2] % block_ == 0 && dims[3] % block_ == 0 : dims[1] % square == 0);
    if (!fits) {
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format("shape {} does not divide into blocks of {}", to_string(dims), block_));
    }
    dims[1] = kToDepth ? dims[1] * square : dims[1] / square;
    for (const size_t i : {size_t{2}, size_t{3}}) {
      dims[i] = kToDepth ? dims[i] / block_ : dims[i] * block_;
    }
    const TensorView& y = planned_output(context, 0, dims);
    const TensorView& deep = kToDepth ? y : x;
    const TensorView& wide = kToDepth ? x : y;
    const Dims d = memory_strides(deep);
    const Dims w = memory_strides(wide);
    const int64_t channels = wide.dims[1];
    const Dims extents{deep.dims[0], channels, deep.dims[2], block_, deep.dims[3], block_};
    const Dims wide_strides{w[0], w[1], block_ * w[2], w[2], block_ * w[3], w[3]};
    const Dims deep_strides =
        column_row_depth_ ? Dims{d[0], square * d[1], d[2], block_ * d[1], d[3], d[1]}
                          : Dims{d[0], d[1], d[2], block_ * channels * d[1], d[3], channels * d[1]};
    copy_strided(y.data, kToDepth ? deep_strides : wide_strides, x.data,
                 kToDepth ? wide_strides : deep_strides, extents, element_bytes(x.dtype));
  }

 private:
  int64_t block_;
  bool column_row_depth_;
};

const OpImpl kRows[] = {
    {"", "Pad", "reference", accept_pad, make<PadStep>},
    {"", "DepthToSpace", "reference", accept_movable, make<BlockStep<false>>},
    {"", "SpaceToDepth", "reference", accept_movable, make<BlockStep<true>>},
};

}  // namespace

std::span<const OpImpl> space_rows() {
  return kRows;
}

}  // namespace narrow::ops
