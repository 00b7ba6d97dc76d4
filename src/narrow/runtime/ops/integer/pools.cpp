// SPDX-License-Identifier: Apache-2.0
// MaxPool, QAveragePool and QGlobalAveragePool on channels-last codes.
#include <algorithm>
#include <array>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/quant/requantize.h"
#include "narrow/runtime/ops/integer/operands.h"
#include "narrow/runtime/ops/window.h"

namespace narrow::integer {
namespace {

using ops::Triple;
using ops::Window;

// Taps of one window that a step keeps at hand; larger windows are for the reference.
constexpr int64_t kMaxTaps = 256;
// Pixels that one kernel call gets.
constexpr int64_t kPixels = 64;
// Bytes read per parallel block: some 10 us.
constexpr int64_t kBlockBytes = 256 * 1024;

/// How many elements the mean over the window at `o` counts.
int64_t counted(const Window& w, const Triple& o, bool include_pad) {
  int64_t count = 1;
  for (size_t s = 0; s < 3; ++s) {
    int64_t first = 0;
    int64_t last = 0;
    if (include_pad) {
      const int64_t begin = o[s] * w.stride[s] - w.pad_begin[s];
      const int64_t end =
          std::min(begin + (w.kernel[s] - 1) * w.dilation[s] + 1, w.in[s] + w.pad_end[s]);
      last = (end - begin + w.dilation[s] - 1) / w.dilation[s];
    } else {
      w.clip(s, o[s], first, last);
    }
    count *= std::max<int64_t>(last - first, 0);
  }
  return count;
}

/// float32(s_x / (s_y * count)); nothing counted gives the code of 0.
float mean_multiplier(float x_scale, float y_scale, int64_t count) {
  const double divisor =
      static_cast<double>(y_scale) * static_cast<double>(std::max<int64_t>(count, 1));
  return static_cast<float>(static_cast<double>(x_scale) / divisor);
}

/// Pixels of one output row that see the same taps.
struct Group {
  const kernels::WindowArgs* args;
  Triple first;   // position of the first output pixel
  int64_t image;  // index in the batch
};

/// Cuts one row of output pixels into groups and hands each to body(Group).
class RowCutter {
 public:
  RowCutter(const Window& w, int64_t channels, const uint8_t* image, uint8_t flip)
      : w_(w), channels_(channels), image_(image) {
    args_.rows = rows_.data();
    args_.taps = taps_.data();
    args_.channels = channels;
    args_.flip = flip;
    args_.ldc = channels;
  }

  /// dst: the first pixel of the row.
  template <class Body>
  void cut(int64_t z, int64_t y, uint8_t* dst, int64_t image, const Body& body) {
    for (int64_t x = 0; x < w_.out[2];) {
      const int64_t count = gather(z, y, x);
      args_.m = count;
      args_.dst = dst + x * channels_;
      for (int64_t i = 0; i < count; ++i) {
        rows_[i] = image_ + (x + i) * w_.stride[2] * channels_;
      }
      body(Group{&args_, {z, y, x}, image});
      x += count;
    }
  }

 private:
  /// Fills the taps of the pixel and returns how many pixels from it on have the same.
  int64_t gather(int64_t z, int64_t y, int64_t x) {
    const Triple o{z, y, x};
    Triple first;
    Triple last;
    for (size_t s = 0; s < 3; ++s) w_.clip(s, o[s], first[s], last[s]);
    int64_t n = 0;
    for (int64_t a = first[0]; a < last[0]; ++a) {
      const int64_t iz = z * w_.stride[0] - w_.pad_begin[0] + a * w_.dilation[0];
      for (int64_t b = first[1]; b < last[1]; ++b) {
        const int64_t iy = y * w_.stride[1] - w_.pad_begin[1] + b * w_.dilation[1];
        for (int64_t c = first[2]; c < last[2]; ++c) {
          const int64_t ix = c * w_.dilation[2] - w_.pad_begin[2];
          taps_[n++] = ((iz * w_.in[1] + iy) * w_.in[2] + ix) * channels_;
        }
      }
    }
    args_.num_taps = n;
    if (first[2] != 0 || last[2] != w_.kernel[2]) return 1;
    const int64_t reach = (w_.kernel[2] - 1) * w_.dilation[2];
    const int64_t last_whole = (w_.in[2] - 1 - reach + w_.pad_begin[2]) / w_.stride[2];
    return std::min({last_whole - x + 1, w_.out[2] - x, kPixels});
  }

  const Window& w_;
  int64_t channels_;
  const uint8_t* image_;
  std::array<const uint8_t*, kPixels> rows_;
  std::array<int64_t, kMaxTaps> taps_;
  kernels::WindowArgs args_ = {};
};

/// Calls body(Group) for all output pixels, in parallel over rows.
template <class Body>
void for_windows(const Window& w, const TensorView& x, const TensorView& y, uint8_t flip,
                 const Body& body) {
  const int64_t channels = x.dims[1];
  const int64_t area = w.in[0] * w.in[1] * w.in[2] * channels;
  const int64_t rows = w.out[0] * w.out[1];
  const int64_t row_bytes = w.out[2] * channels;
  const int64_t read = row_bytes * w.kernel[0] * w.kernel[1] * w.kernel[2];
  parallel_for(x.dims[0] * rows, std::max<int64_t>(kBlockBytes / std::max<int64_t>(read, 1), 1),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t image = i / rows;
                   RowCutter cutter(w, channels, x.as<uint8_t>() + image * area, flip);
                   cutter.cut(i % rows / w.out[1], i % w.out[1], y.as<uint8_t>() + i * row_bytes,
                              image, body);
                 }
               });
}

class WindowStep : public Step {
 public:
  WindowStep(const Node& node, Isa isa) : node_(node), kernels_(kernels_for(isa)) {}
  Layout input_layout(size_t i) const override {
    return i == 0 ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }

 protected:
  Window window(const TensorView& x) const {
    return ops::make_window(pool_geometry(node_, x.dims), x.dims);
  }
  Node node_;
  const kernels::KernelSet& kernels_;
};

class MaxPoolStep final : public WindowStep {
 public:
  MaxPoolStep(const Graph&, const Node& node, Isa isa) : WindowStep(node, isa) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const uint8_t flip = x.dtype == DType::int8 ? 0x80 : 0;
    for_windows(window(x), x, context.outputs[0], flip,
                [&](const Group& g) { kernels_.max_pool(*g.args); });
  }
};

/// What the averages share: the grids and the outcome of a count.
struct Averages {
  CodeGrid x;
  OutputSpec y;
  Averages(const Graph& graph, const Node& node)
      : x(read_grid(graph, node, 0)), y(read_output(graph, node, 3)) {}

  /// `taps` elements are added, `count` divides.
  kernels::AverageArgs args(int64_t taps, int64_t count) const {
    const kernels::ConvOutput target = y.target(nullptr);
    return {static_cast<int32_t>(-taps * x.byte_zero()),
            mean_multiplier(x.scale, y.grid.scale, count), target.lo, target.hi, target.zero_point};
  }
  uint8_t code(int64_t acc, int64_t count) const {
    const float t = static_cast<float>(acc) * mean_multiplier(x.scale, y.grid.scale, count);
    return static_cast<uint8_t>(round_to_code(t, y.grid.zero_point, y.qmin, y.qmax));
  }
};

class AveragePoolStep final : public WindowStep {
 public:
  AveragePoolStep(const Graph& graph, const Node& node, Isa isa)
      : WindowStep(node, isa),
        averages_(graph, node),
        include_pad_(node.int_or("count_include_pad", 0) != 0) {}
  void run(RunContext& context) const override {
    const Window w = window(context.inputs[0]);
    for_windows(w, context.inputs[0], context.outputs[0], averages_.x.flip(), [&](const Group& g) {
      // Padding counts alike for all pixels of a group, unless the window ends behind it.
      const int64_t count = counted(w, g.first, include_pad_);
      kernels_.average_pool(*g.args, averages_.args(g.args->num_taps, count));
    });
  }

 private:
  Averages averages_;
  bool include_pad_;
};

class GlobalAverageStep final : public Step {
 public:
  GlobalAverageStep(const Graph& graph, const Node& node, Isa isa)
      : kernels_(kernels_for(isa)), averages_(graph, node) {}
  Layout input_layout(size_t i) const override {
    return i == 0 ? Layout::channels_last : Layout::plain;
  }
  // One pixel: both layouts are the same memory.
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    return static_cast<size_t>(area(inputs[0])) * sizeof(int64_t);
  }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const int64_t channels = x.dims[1];
    const int64_t pixels = area(x.dims);
    auto* taps = reinterpret_cast<int64_t*>(context.scratch.data());
    for (int64_t i = 0; i < pixels; ++i) taps[i] = i * channels;
    const kernels::AverageArgs average = averages_.args(pixels, pixels);
    const int64_t image = std::max<int64_t>(pixels * channels, 1);
    parallel_for(
        x.dims[0], std::max<int64_t>(kBlockBytes / image, 1), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const uint8_t* row = x.as<uint8_t>() + i * image;
            const kernels::WindowArgs args = {&row,
                                              1,
                                              taps,
                                              pixels,
                                              channels,
                                              averages_.x.flip(),
                                              context.outputs[0].as<uint8_t>() + i * channels,
                                              channels};
            kernels_.average_pool(args, average);
          }
        });
  }

 private:
  static int64_t area(const Dims& x) {
    const int64_t pixels = num_elements(x, 2, x.size());
    // 255 * pixels has to fit int32.
    if (pixels > std::numeric_limits<int32_t>::max() / 256) {
      throw Error(ErrorCode::unsupported,
                  "the average over an image of " + to_string(x) + " passes int32");
    }
    return pixels;
  }
  const kernels::KernelSet& kernels_;
  Averages averages_;
};

/// The specification of both averages, in plain layout.
class ReferenceAverageStep final : public Step {
 public:
  ReferenceAverageStep(const Graph& graph, const Node& node)
      : node_(node),
        averages_(graph, node),
        global_(node.op == ops::kQGlobalAveragePool),
        include_pad_(node.int_or("count_include_pad", 0) != 0) {}
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const std::vector<int32_t> values = centered(x, averages_.x.zero_point);
    const Window w =
        global_ ? whole_image(x.dims) : ops::make_window(pool_geometry(node_, x.dims), x.dims);
    uint8_t* y = context.outputs[0].as<uint8_t>();
    const int64_t area = w.in[0] * w.in[1] * w.in[2];
    for (int64_t plane = 0; plane < x.dims[0] * x.dims[1]; ++plane) {
      const std::span<const int32_t> in = std::span(values).subspan(plane * area, area);
      for (int64_t i = 0; i < w.out[0] * w.out[1] * w.out[2]; ++i) {
        const Triple o{i / (w.out[1] * w.out[2]), i / w.out[2] % w.out[1], i % w.out[2]};
        *y++ = averages_.code(sum(w, in, o), counted(w, o, include_pad_));
      }
    }
  }

 private:
  static Window whole_image(const Dims& x) {
    Window w = {};
    w.in = {1, 1, num_elements(x, 2, x.size())};
    w.out = {1, 1, 1};
    w.kernel = w.in;
    w.stride = {1, 1, 1};
    w.dilation = {1, 1, 1};
    return w;
  }
  static int64_t sum(const Window& w, std::span<const int32_t> in, const Triple& o) {
    int64_t acc = 0;
    for (int64_t a = 0; a < w.kernel[0]; ++a) {
      for (int64_t b = 0; b < w.kernel[1]; ++b) {
        for (int64_t c = 0; c < w.kernel[2]; ++c) {
          const Triple k{a, b, c};
          Triple at;
          bool inside = true;
          for (size_t s = 0; s < 3; ++s) {
            at[s] = o[s] * w.stride[s] - w.pad_begin[s] + k[s] * w.dilation[s];
            inside = inside && at[s] >= 0 && at[s] < w.in[s];
          }
          if (inside) acc += in[(at[0] * w.in[1] + at[1]) * w.in[2] + at[2]];
        }
      }
    }
    return acc;
  }
  Node node_;
  Averages averages_;
  bool global_;
  bool include_pad_;
};

Refusal accept_window(const Graph& graph, const Node& node) {
  if (!is_code_dtype(dtype_of(graph, node, 0))) return "the input has no 8-bit codes";
  if (Refusal r = ops::refuse_spatial_rank(graph, node, 0); !r.empty()) return r;
  int64_t taps = 1;
  for (const int64_t k : node.ints_or("kernel_shape", {})) {
    if (k < 1 || k > kMaxTaps) return "the window is too large";
    taps *= k;
    if (taps > kMaxTaps) return "the window is too large";
  }
  return {};
}

Refusal accept_average(const Graph& graph, const Node& node) {
  if (Refusal r = refuse_grid(graph, node, 0); !r.empty()) return r;
  if (!is_code_dtype(graph.value(node.output(0)).dtype)) return "the output has no 8-bit codes";
  return ops::refuse_spatial_rank(graph, node, 0);
}

Refusal accept_kernels(Isa isa, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  return kernels::refuse_isa(isa);
}

template <Isa isa>
Refusal accept_max(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal r = accept_kernels(isa, options); !r.empty()) return r;
  if (node.output(1) != kNoId) return "indices are wanted";
  return accept_window(graph, node);
}

template <Isa isa>
Refusal accept_average_pool(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal r = accept_kernels(isa, options); !r.empty()) return r;
  if (Refusal r = accept_average(graph, node); !r.empty()) return r;
  return accept_window(graph, node);
}

template <Isa isa>
Refusal accept_global(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal r = accept_kernels(isa, options); !r.empty()) return r;
  if (Refusal r = accept_average(graph, node); !r.empty()) return r;
  const auto& shape = graph.value(node.input(0)).shape;
  return shape ? Refusal{} : "the rank of the input is unknown";
}

Refusal accept_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return accept_average(graph, node);
}

template <class S, Isa isa>
std::unique_ptr<Step> make(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node, isa);
}

std::unique_ptr<Step> make_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<ReferenceAverageStep>(graph, node);
}

#define NARROW_POOLS(isa)                                                   \
  {"", "MaxPool", #isa, accept_max<Isa::isa>, make<MaxPoolStep, Isa::isa>}, \
      {"narrow", "QAveragePool", #isa, accept_average_pool<Isa::isa>,       \
       make<AveragePoolStep, Isa::isa>},                                    \
  {                                                                         \
    "narrow", "QGlobalAveragePool", #isa, accept_global<Isa::isa>,          \
        make<GlobalAverageStep, Isa::isa>                                   \
  }

constexpr OpImpl kRows[] = {
#if defined(__x86_64__)
    NARROW_POOLS(avx512_vnni),
    NARROW_POOLS(avx2),
#endif
    NARROW_POOLS(scalar),
    {"narrow", "QAveragePool", "reference", accept_reference, make_reference},
    {"narrow", "QGlobalAveragePool", "reference", accept_reference, make_reference},
};
#undef NARROW_POOLS

}  // namespace

std::span<const OpImpl> pool_rows() {
  return kRows;
}

}  // namespace narrow::integer
