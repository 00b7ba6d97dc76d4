// SPDX-License-Identifier: Apache-2.0
// Pooling over windows and over whole images, in either memory order. Maxima also on integer codes.
#include <algorithm>
#include <cmath>
#include <limits>

#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/window.h"

namespace narrow::ops {
namespace {

/// The taps of one window that lie inside the input, along each axis.
struct Taps {
  Triple first;
  Triple last;
};

Taps taps_at(const Window& w, const Triple& o) {
  Taps taps;
  for (size_t i = 0; i < 3; ++i) w.clip(i, o[i], taps.first[i], taps.last[i]);
  return taps;
}

/// Calls tap(offset in spatial strides, input position) for every tap inside.
template <class Tap>
void for_taps(const Window& w, const ImageView& in, const Triple& o, const Tap& tap) {
  const Taps t = taps_at(w, o);
  const auto at = [&](size_t s, int64_t k) {
    return o[s] * w.stride[s] - w.pad_begin[s] + k * w.dilation[s];
  };
  for (int64_t a = t.first[0]; a < t.last[0]; ++a) {
    for (int64_t b = t.first[1]; b < t.last[1]; ++b) {
      for (int64_t c = t.first[2]; c < t.last[2]; ++c) {
        const Triple i{at(0, a), at(1, b), at(2, c)};
        tap(i[0] * in.stride[0] + i[1] * in.stride[1] + i[2] * in.stride[2], i);
      }
    }
  }
}

/// Calls pixel(n, position, offset in the output) for every output pixel of every image.
template <class Pixel>
void for_pixels(const Window& w, const ImageView& out, const Pixel& pixel) {
  const int64_t plane = w.out[1] * w.out[2];
  const int64_t pixels = w.out[0] * plane;
  const int64_t work = out.channels * w.kernel[0] * w.kernel[1] * w.kernel[2];
  parallel_for(out.batch * pixels, std::max<int64_t>(1, kBlockElements / (work + 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t index = begin; index < end; ++index) {
                   const int64_t p = index % pixels;
                   const Triple o{p / plane, p / w.out[2] % w.out[1], p % w.out[2]};
                   pixel(index / pixels, o,
                         o[0] * out.stride[0] + o[1] * out.stride[1] + o[2] * out.stride[2]);
                 }
               });
}

class PoolStep : public Step {
 public:
  PoolStep(const Graph&, const Node& node) : node_(node) {}
  /// Strides all the way; channels_last rows vectorise over channels.
  bool layout_agnostic() const override { return true; }

 protected:
  Node node_;
};

class MaxPoolStep final : public PoolStep {
 public:
  using PoolStep::PoolStep;
  void run(RunContext& context) const override {
    visit(Numeric{}, context.inputs[0].dtype, [&]<class T>(std::type_identity<T>) {
      const bool indexed = context.outputs.size() > 1 && context.outputs[1].data != nullptr;
      indexed ? run_indexed<T>(context) : run_values<T>(context);
    });
  }

 private:
  template <class T>
  static constexpr T kLowest = std::numeric_limits<T>::has_infinity
                                   ? -std::numeric_limits<T>::infinity()
                                   : std::numeric_limits<T>::lowest();

  template <class T>
  void run_values(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    const Window w = make_window(pool_geometry(node_, x.dims), x.dims);
    const ImageView in = image_view(x);
    const ImageView out = image_view(context.outputs[0]);
    T* dst = context.outputs[0].as<T>();
    if (in.channel_stride != 1 || out.channel_stride != 1) return run_planes(x, dst, w, in, out);
    for_pixels(w, out, [&](int64_t n, const Triple& o, int64_t at) {
      T* to = dst + n * out.batch_stride + at;
      std::fill_n(to, in.channels, kLowest<T>);
      for_taps(w, in, o, [&](int64_t offset, const Triple&) {
        const T* from = x.as<T>() + n * in.batch_stride + offset;
        NARROW_SIMD
        for (int64_t c = 0; c < in.channels; ++c) to[c] = from[c] > to[c] ? from[c] : to[c];
      });
    });
  }

  template <class T>
  static void run_planes(const TensorView& x, T* dst, const Window& w, const ImageView& in,
                         const ImageView& out) {
    const int64_t plane = w.out[0] * w.out[1] * w.out[2];
    parallel_for(out.batch * out.channels, std::max<int64_t>(1, kBlockElements / (plane + 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     const int64_t n = i / out.channels;
                     const int64_t c = i % out.channels;
                     max_plane(x.as<T>() + n * in.batch_stride + c * in.channel_stride,
                               dst + n * out.batch_stride + c * out.channel_stride, w, in, out);
                   }
                 });
  }

  template <class T>
  static void max_plane(const T* src, T* dst, const Window& w, const ImageView& in,
                        const ImageView& out) {
    Triple o;
    for (o[0] = 0; o[0] < w.out[0]; ++o[0]) {
      for (o[1] = 0; o[1] < w.out[1]; ++o[1]) {
        for (o[2] = 0; o[2] < w.out[2]; ++o[2]) {
          T most = kLowest<T>;
          for_taps(w, in, o, [&](int64_t offset, const Triple&) {
            most = src[offset] > most ? src[offset] : most;
          });
          dst[o[0] * out.stride[0] + o[1] * out.stride[1] + o[2] * out.stride[2]] = most;
        }
      }
    }
  }

  /// Second output: where each maximum came from, counted in the row-major input (or with the
  /// spatial axes swapped for storage_order = 1).
  template <class T>
  void run_indexed(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    const Window w = make_window(pool_geometry(node_, x.dims), x.dims);
    const ImageView in = image_view(x);
    const ImageView out = image_view(context.outputs[0]);
    const ImageView where = image_view(context.outputs[1]);
    const bool column_major = node_.int_or("storage_order", 0) != 0;
    const int64_t image = w.in[0] * w.in[1] * w.in[2];
    for_pixels(w, out, [&](int64_t n, const Triple& o, int64_t at) {
      const int64_t index_at =
          o[0] * where.stride[0] + o[1] * where.stride[1] + o[2] * where.stride[2];
      for (int64_t c = 0; c < in.channels; ++c) {
        T most = kLowest<T>;
        int64_t index = -1;
        for_taps(w, in, o, [&](int64_t offset, const Triple& i) {
          const T v = x.as<T>()[n * in.batch_stride + c * in.channel_stride + offset];
          if (v <= most && index >= 0) return;
          most = v;
          index = column_major ? i[0] + w.in[0] * (i[1] + w.in[1] * i[2])
                               : (i[0] * w.in[1] + i[1]) * w.in[2] + i[2];
        });
        context.outputs[0].as<T>()[n * out.batch_stride + c * out.channel_stride + at] = most;
        context.outputs[1]
            .as<int64_t>()[n * where.batch_stride + c * where.channel_stride + index_at] =
            (n * in.channels + c) * image + index;
      }
    });
  }
};

/// How many elements the mean over a window counts.
int64_t counted(const Window& w, const Triple& o, bool include_pad) {
  int64_t count = 1;
  for (size_t s = 0; s < 3; ++s) {
    if (include_pad) {
      const int64_t begin = o[s] * w.stride[s] - w.pad_begin[s];
      const int64_t end =
          std::min(begin + (w.kernel[s] - 1) * w.dilation[s] + 1, w.in[s] + w.pad_end[s]);
      count *= (end - begin + w.dilation[s] - 1) / w.dilation[s];
    } else {
      int64_t first;
      int64_t last;
      w.clip(s, o[s], first, last);
      count *= std::max<int64_t>(last - first, 0);
    }
  }
  return count;
}

/// AveragePool: sums, then divides. LpPool: (sum |x|^p)^(1/p).
template <class Kind>
class SumPoolStep final : public PoolStep {
 public:
  SumPoolStep(const Graph& graph, const Node& node) : PoolStep(graph, node), kind_(node) {}
  void run(RunContext& context) const override {
    visit(Floating{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
  }

 private:
  template <class T>
  void run_typed(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    const Window w = make_window(pool_geometry(node_, x.dims), x.dims);
    const ImageView in = image_view(x);
    const ImageView out = image_view(context.outputs[0]);
    for_pixels(w, out, [&](int64_t n, const Triple& o, int64_t at) {
      const T* src = x.as<T>() + n * in.batch_stride;
      T* to = context.outputs[0].as<T>() + n * out.batch_stride + at;
      const int64_t count = kind_.count(w, o);
      if (in.channel_stride == 1 && out.channel_stride == 1) {
        std::fill_n(to, in.channels, T{0});
        for_taps(w, in, o, [&](int64_t offset, const Triple&) {
          const T* from = src + offset;
          NARROW_SIMD
          for (int64_t c = 0; c < in.channels; ++c) to[c] += kind_.term(from[c]);
        });
        for (int64_t c = 0; c < in.channels; ++c) to[c] = kind_.finish(to[c], count);
        return;
      }
      for (int64_t c = 0; c < in.channels; ++c) {
        T sum = 0;
        for_taps(w, in, o, [&](int64_t offset, const Triple&) {
          sum += kind_.term(src[c * in.channel_stride + offset]);
        });
        to[c * out.channel_stride] = kind_.finish(sum, count);
      }
    });
  }

  Kind kind_;
};

struct Average {
  bool include_pad;
  explicit Average(const Node& n) : include_pad(n.int_or("count_include_pad", 0) != 0) {}
  int64_t count(const Window& w, const Triple& o) const { return counted(w, o, include_pad); }
  template <class T>
  T term(T x) const {
    return x;
  }
  template <class T>
  T finish(T sum, int64_t count) const {
    return count == 0 ? T{0} : sum / static_cast<T>(count);
  }
};

struct Power {
  int64_t p;
  explicit Power(const Node& n) : p(n.int_or("p", 2)) {}
  int64_t count(const Window&, const Triple&) const { return 1; }
  template <class T>
  T term(T x) const {
    if (p == 1) return std::abs(x);
    return p == 2 ? x * x : std::pow(std::abs(x), static_cast<T>(p));
  }
  template <class T>
  T finish(T sum, int64_t) const {
    if (p == 1) return sum;
    return p == 2 ? std::sqrt(sum) : std::pow(sum, T{1} / static_cast<T>(p));
  }
};

/// One number per channel: the window is the whole image.
template <class Kind>
class GlobalStep final : public Step {
 public:
  GlobalStep(const Graph&, const Node& node) : kind_(node) {}
  bool layout_agnostic() const override { return true; }
  void run(RunContext& context) const override {
    visit(typename Kind::List{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
  }

 private:
  template <class T>
  void run_typed(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    const int64_t image = num_elements(x.dims, 2, x.dims.size());
    const int64_t channels = x.dims[1];
    T* y = context.outputs[0].as<T>();
    if (x.layout == Layout::channels_last) {
      for (int64_t n = 0; n < x.dims[0]; ++n) {
        reduce_rows(x.as<T>() + n * image * channels, y + n * channels, channels, image);
      }
      return;
    }
    parallel_for(x.dims[0] * channels, std::max<int64_t>(1, kBlockElements / (image + 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     T total = kind_.template start<T>();
                     const T* src = x.as<T>() + i * image;
                     for (int64_t p = 0; p < image; ++p) total = kind_.join(total, src[p]);
                     y[i] = kind_.finish(total, image);
                   }
                 });
  }

  /// Channels side by side; threads share the channels, not the pixels.
  template <class T>
  void reduce_rows(const T* src, T* y, int64_t channels, int64_t image) const {
    const int64_t block = std::max<int64_t>(16, 4 * kBlockElements / (image + 1));
    parallel_for(channels, block, [&](int64_t begin, int64_t end) {
      std::fill(y + begin, y + end, kind_.template start<T>());
      for (int64_t p = 0; p < image; ++p) {
        const T* row = src + p * channels;
        NARROW_SIMD
        for (int64_t c = begin; c < end; ++c) y[c] = kind_.join(y[c], row[c]);
      }
      for (int64_t c = begin; c < end; ++c) y[c] = kind_.finish(y[c], image);
    });
  }

  Kind kind_;
};

struct GlobalAverage {
  using List = Floating;
  explicit GlobalAverage(const Node&) {}
  template <class T>
  T start() const {
    return T{0};
  }
  template <class T>
  T join(T total, T x) const {
    return total + x;
  }
  template <class T>
  T finish(T total, int64_t count) const {
    return total / static_cast<T>(count);
  }
};

struct GlobalMax {
  using List = Numeric;
  explicit GlobalMax(const Node&) {}
  template <class T>
  T start() const {
    return std::numeric_limits<T>::lowest();
  }
  template <class T>
  T join(T total, T x) const {
    return x > total ? x : total;
  }
  template <class T>
  T finish(T total, int64_t) const {
    return total;
  }
};

struct GlobalPower {
  using List = Floating;
  Power power;
  explicit GlobalPower(const Node& n) : power(n) {}
  template <class T>
  T start() const {
    return T{0};
  }
  template <class T>
  T join(T total, T x) const {
    return total + power.term(x);
  }
  template <class T>
  T finish(T total, int64_t) const {
    return power.finish(total, 1);
  }
};

template <class List>
Refusal accept_pool(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = accept<List>(graph, node, options); !why.empty()) return why;
  return refuse_spatial_rank(graph, node, 0);
}

Refusal accept_half_pool(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = accept_half<>(graph, node, options); !why.empty()) return why;
  return refuse_spatial_rank(graph, node, 0);
}

#define NARROW_POOL(op, step, types)                                  \
  {"", op, "reference:float16", accept_half_pool, make_half<step>}, { \
    "", op, "reference", accept_pool<types>, make<step>               \
  }

const OpImpl kRows[] = {
    NARROW_POOL("MaxPool", MaxPoolStep, Numeric),
    NARROW_POOL("AveragePool", SumPoolStep<Average>, Floating),
    NARROW_POOL("LpPool", SumPoolStep<Power>, Floating),
    NARROW_POOL("GlobalAveragePool", GlobalStep<GlobalAverage>, Floating),
    NARROW_POOL("GlobalMaxPool", GlobalStep<GlobalMax>, Numeric),
    NARROW_POOL("GlobalLpPool", GlobalStep<GlobalPower>, Floating),
};

}  // namespace

std::span<const OpImpl> pool_rows() {
  return kRows;
}

}  // namespace narrow::ops
