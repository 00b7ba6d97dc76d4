// SPDX-License-Identifier: Apache-2.0
// Resize: "nearest" moves elements of any type; "linear" and "cubic" go over one axis after the
// other, rows at a time.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/runtime/ops/resize_map.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

/// Logical axes from the outermost in memory to the innermost.
std::vector<size_t> memory_order(const TensorView& view) {
  std::vector<size_t> order;
  const bool last = view.layout == Layout::channels_last && view.dims.size() >= 3;
  for (size_t i = 0; i < view.dims.size(); ++i) {
    if (!(last && i == 1)) order.push_back(i);
  }
  if (last) order.push_back(1);
  return order;
}

class ResizeStep final : public Step {
 public:
  ResizeStep(const Graph&, const Node& node) : form_(node) {}
  /// Feature maps come from convolutions and go to them.
  Layout input_layout(size_t i) const override {
    return i == 0 ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }

  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    if (form_.mode == ResizeMode::nearest) return 0;
    return 2 * aligned(pass_bytes(inputs[0], outputs[0]));
  }

  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const std::vector<AxisResize> axes = resize_axes(form_, context.inputs);
    Dims dims;
    for (const AxisResize& a : axes) dims.push_back(a.out);
    const TensorView& y = planned_output(context, 0, dims);
    if (y.elements() == 0) return;
    if (x.elements() == 0) {
      throw Error(ErrorCode::invalid_argument, "an empty tensor cannot be resized");
    }
    std::vector<AxisMap> maps;
    for (const size_t axis : memory_order(x)) maps.push_back(make_axis_map(form_, axes[axis]));
    if (form_.mode == ResizeMode::nearest) {
      move_nearest(x, y, maps);
    } else {
      visit(Floating{}, x.dtype,
            [&]<class T>(std::type_identity<T>) { interpolate<T>(context, maps); });
    }
    extrapolate(y, maps);
  }

 private:
  /// A bound for what stands between two passes: axes done so far have their new extent.
  static size_t pass_bytes(const Dims& in, const Dims& out) {
    int64_t most = 1;
    for (size_t i = 0; i < in.size(); ++i) most *= std::max({in[i], out[i], int64_t{1}});
    return static_cast<size_t>(most) * sizeof(double);
  }

  /// Whole innermost rows where the innermost axis stays as it is.
  static void move_nearest(const TensorView& x, const TensorView& y,
                           const std::vector<AxisMap>& maps) {
    const auto bytes = static_cast<int64_t>(element_bytes(x.dtype));
    const bool whole_rows = maps.back().is_identity();
    const AxisMap& last = maps.back();
    const int64_t rows = y.elements() / last.out;
    parallel_for(rows, std::max<int64_t>(1, kBlockElements / last.out),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     const std::byte* from = x.data + source_row(maps, row) * last.in * bytes;
                     std::byte* to = y.data + row * last.out * bytes;
                     if (whole_rows) {
                       std::memcpy(to, from, static_cast<size_t>(last.out * bytes));
                     } else {
                       move_row(last, from, to, bytes);
                     }
                   }
                 });
  }

  static int64_t source_row(const std::vector<AxisMap>& maps, int64_t row) {
    int64_t source = 0;
    int64_t stride = 1;
    for (size_t i = maps.size() - 1; i-- > 0;) {
      source += maps[i].index[static_cast<size_t>(row % maps[i].out)] * stride;
      row /= maps[i].out;
      stride *= maps[i].in;
    }
    return source;
  }

  static void move_row(const AxisMap& map, const std::byte* from, std::byte* to, int64_t bytes) {
    const auto move = [&]<class T>(std::type_identity<T>) {
      const T* src = reinterpret_cast<const T*>(from);
      T* dst = reinterpret_cast<T*>(to);
      for (int64_t o = 0; o < map.out; ++o) dst[o] = src[map.index[static_cast<size_t>(o)]];
    };
    switch (bytes) {
      case 1:
        return move(std::type_identity<uint8_t>{});
      case 2:
        return move(std::type_identity<uint16_t>{});
      case 4:
        return move(std::type_identity<uint32_t>{});
      default:
        return move(std::type_identity<uint64_t>{});
    }
  }

  template <class T>
  void interpolate(RunContext& context, const std::vector<AxisMap>& maps) const {
    const TensorView& y = context.outputs[0];
    std::vector<size_t> active;
    for (size_t i = 0; i < maps.size(); ++i) {
      if (!maps[i].is_identity()) active.push_back(i);
    }
    const T* from = context.inputs[0].as<T>();
    if (active.empty()) {
      std::memcpy(y.data, from, view_bytes(y));
      return;
    }
    T* buffers[2] = {reinterpret_cast<T*>(context.scratch.data()),
                     reinterpret_cast<T*>(context.scratch.data() + context.scratch.size() / 2)};
    for (size_t k = 0; k < active.size(); ++k) {
      T* to = k + 1 == active.size() ? y.as<T>() : buffers[k % 2];
      pass(maps, active[k], from, to);
      from = to;
    }
  }

  /// One axis: [outer, in, inner] to [outer, out, inner]; axes before it are done.
  template <class T>
  static void pass(const std::vector<AxisMap>& maps, size_t axis, const T* from, T* to) {
    int64_t outer = 1;
    int64_t inner = 1;
    for (size_t i = 0; i < axis; ++i) outer *= maps[i].out;
    for (size_t i = axis + 1; i < maps.size(); ++i) inner *= maps[i].in;
    const AxisMap& map = maps[axis];
    parallel_for(outer * map.out, std::max<int64_t>(1, kBlockElements / (inner * map.taps)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     const T* src = from + row / map.out * map.in * inner;
                     mix(map, row % map.out, src, inner, to + row * inner);
                   }
                 });
  }

  template <class T>
  static void mix(const AxisMap& map, int64_t o, const T* src, int64_t inner, T* to) {
    const int64_t* index = map.index.data() + o * map.taps;
    const float* weight = map.weight.data() + o * map.taps;
    const T first = static_cast<T>(weight[0]);
    const T* row = src + index[0] * inner;
    NARROW_SIMD
    for (int64_t i = 0; i < inner; ++i) to[i] = first * row[i];
    for (int64_t t = 1; t < map.taps; ++t) {
      const T w = static_cast<T>(weight[t]);
      if (w == 0) continue;
      const T* next = src + index[t] * inner;
      NARROW_SIMD
      for (int64_t i = 0; i < inner; ++i) to[i] += w * next[i];
    }
  }

  void extrapolate(const TensorView& y, const std::vector<AxisMap>& maps) const {
    const std::vector<size_t> order = memory_order(y);
    const Dims strides = memory_strides(y);
    for (size_t i = 0; i < maps.size(); ++i) {
      if (maps[i].outside.empty()) continue;
      visit(Numeric{}, y.dtype, [&]<class T>(std::type_identity<T>) {
        const T value = static_cast<T>(form_.extrapolation);
        Dims extents = y.dims;
        extents[order[i]] = 1;
        for (const int64_t o : maps[i].outside) {
          copy_strided(y.data + static_cast<size_t>(o * strides[order[i]]) * sizeof(T), strides,
                       reinterpret_cast<const std::byte*>(&value), Dims(extents.size(), 0), extents,
                       sizeof(T));
        }
      });
    }
  }

  ResizeForm form_;
};

Refusal accept_resize(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = accept_movable(graph, node, options); !why.empty()) return why;
  const ResizeForm form(node);
  if (form.mode == ResizeMode::nearest && form.coordinates != Coordinates::tf_crop_and_resize) {
    return {};
  }
  if (form.mode == ResizeMode::nearest) return accept<Numeric>(graph, node, options);
  return accept<Floating>(graph, node, options);
}

/// Scales stay float32 beside 16-bit data, and the region of interest has the data's type.
const OpImpl kRows[] = {
    {"", "Resize", "reference:float16", accept_half<>, make_half<ResizeStep>},
    {"", "Resize", "reference", accept_resize, make<ResizeStep>},
};

}  // namespace

std::span<const OpImpl> resize_rows() {
  return kRows;
}

}  // namespace narrow::ops
