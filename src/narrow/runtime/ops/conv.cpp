// SPDX-License-Identifier: Apache-2.0
// Convolutions in float: the plain definition, and im2col with a packed matrix product.
// narrow.FusedConv is Conv with inputs (x, w, bias?, residual?): activation(conv + bias +
// residual).
#include <algorithm>
#include <vector>

#include "narrow/runtime/ops/activation.h"
#include "narrow/runtime/ops/gemm.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/window.h"

namespace narrow::ops {
namespace {

int64_t conv_macs(std::span<const Dims> inputs, std::span<const Dims> outputs) {
  const Dims& w = inputs[1];
  return num_elements(outputs[0]) * num_elements(w, 1, w.size());
}

/// What both forms share.
class ConvStep : public Step {
 public:
  ConvStep(const Graph&, const Node& node) : node_(node), activation_(activation_of(node)) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    return conv_macs(inputs, outputs);
  }

 protected:
  Node node_;
  Activation activation_;
};

/// The definition: one sum per output element, in double or float as the type says.
class ReferenceConv final : public ConvStep {
 public:
  using ConvStep::ConvStep;
  /// Reads and writes by strides.
  bool layout_agnostic() const override { return false; }
  void run(RunContext& context) const override {
    visit(Floating{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
  }

 private:
  template <class T>
  void run_typed(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    const TensorView& w = context.inputs[1];
    const TensorView& y = context.outputs[0];
    const ConvGeometry geometry = conv_geometry(node_, x.dims, w.dims);
    const Window window = make_window(geometry, x.dims);
    const ImageView in = image_view(x);
    const ImageView taps = image_view(w);
    const ImageView out = image_view(y);
    const int64_t out_per_group = w.dims[0] / geometry.group;
    parallel_for(out.batch * out.channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) {
        const int64_t n = index / out.channels;
        const int64_t m = index % out.channels;
        const T* src =
            x.as<T>() + n * in.batch_stride + m / out_per_group * taps.channels * in.channel_stride;
        const T* weights = w.as<T>() + m * taps.batch_stride;
        T* dst = y.as<T>() + n * out.batch_stride + m * out.channel_stride;
        const T bias = present(context.inputs, 2) ? context.inputs[2].as<T>()[m] : T{0};
        for_positions(window, [&](const Triple& o) {
          const int64_t at = o[0] * out.stride[0] + o[1] * out.stride[1] + o[2] * out.stride[2];
          dst[at] = bias + dot(window, in, taps, src, weights, o);
        });
      }
    });
    finish<T>(context);
  }

  template <class Body>
  static void for_positions(const Window& w, const Body& body) {
    for (int64_t a = 0; a < w.out[0]; ++a) {
      for (int64_t b = 0; b < w.out[1]; ++b) {
        for (int64_t c = 0; c < w.out[2]; ++c) body({a, b, c});
      }
    }
  }

  template <class T>
  static T dot(const Window& w, const ImageView& in, const ImageView& taps, const T* src,
               const T* weights, const Triple& o) {
    Triple first;
    Triple last;
    for (size_t i = 0; i < 3; ++i) w.clip(i, o[i], first[i], last[i]);
    T sum = 0;
    for (int64_t c = 0; c < taps.channels; ++c) {
      for (int64_t i = first[0]; i < last[0]; ++i) {
        for (int64_t j = first[1]; j < last[1]; ++j) {
          for (int64_t k = first[2]; k < last[2]; ++k) {
            const Triple tap{i, j, k};
            int64_t from = c * in.channel_stride;
            int64_t weight = c * taps.channel_stride;
            for (size_t s = 0; s < 3; ++s) {
              from += (o[s] * w.stride[s] - w.pad_begin[s] + tap[s] * w.dilation[s]) * in.stride[s];
              weight += tap[s] * taps.stride[s];
            }
            sum += src[from] * weights[weight];
          }
        }
      }
    }
    return sum;
  }

  template <class T>
  void finish(RunContext& context) const {
    const TensorView& y = context.outputs[0];
    if (present(context.inputs, 3)) {
      const T* residual = context.inputs[3].as<T>();
      for (int64_t i = 0; i < y.elements(); ++i) y.as<T>()[i] += residual[i];
    }
    if constexpr (std::is_same_v<T, float>) activation_.apply(y.as<float>(), y.elements());
  }
};

/// Row-major: each group is W [M x K] times the unrolled input [K x positions], made in panels for
/// a few hundred positions at a time.
class Im2colConv final : public ConvStep {
 public:
  Im2colConv(const Graph& graph, const Node& node) : ConvStep(graph, node) {
    const Tensor* w = graph.constant(node.inputs[1]);
    if (w == nullptr) return;
    weights_ = Tensor(DType::float32, {static_cast<int64_t>(packed_elements(w->dims()))});
    pack_weights(w->data<float>().data(), w->dims(), weights_.mutable_data<float>().data());
  }

  size_t packed_bytes() const override { return weights_.defined() ? weights_.bytes() : 0; }

  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    const Dims& w = inputs[1];
    const int64_t k = num_elements(w, 1, w.size());
    const size_t unrolled = packed_columns_elements(kernel_, kPositions, k) * sizeof(float);
    const size_t packed = weights_.defined() ? 0 : packed_elements(w) * sizeof(float);
    return aligned(unrolled) + aligned(packed);
  }

  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& w = context.inputs[1];
    const TensorView& y = context.outputs[0];
    const ConvGeometry geometry = conv_geometry(node_, x.dims, w.dims);
    const Window window = make_window(geometry, x.dims);
    const int64_t groups = geometry.group;
    const int64_t channels = w.dims[1];
    const int64_t k = channels * geometry.window();
    const int64_t m = w.dims[0] / groups;
    const int64_t positions = num_elements(geometry.output);
    const int64_t image = num_elements(x.dims, 2, x.dims.size());
    auto* unrolled = reinterpret_cast<float*>(context.scratch.data());
    const float* weights = packed_weights(context, k);
    const size_t group_elements = packed_rows_elements(kernel_, m, k);
    for (int64_t n = 0; n < x.dims[0]; ++n) {
      for (int64_t g = 0; g < groups; ++g) {
        const float* src = x.as<float>() + (n * groups + g) * channels * image;
        float* dst = y.as<float>() + (n * groups + g) * m * positions;
        fill_bias(context, g * m, m, positions, dst);
        for (int64_t p = 0; p < positions; p += kPositions) {
          const int64_t count = std::min(kPositions, positions - p);
          unroll(window, src, channels, image, p, count, k, unrolled);
          multiply_packed(kernel_, weights + static_cast<size_t>(g) * group_elements, unrolled, m,
                          count, k, dst + p, positions, GemmInto::add);
        }
        finish(context, (n * groups + g) * m * positions, m * positions, dst);
      }
    }
  }

 private:
  // Positions unrolled at a time: with K = 576 (64 channels, 3 x 3) 1.1 MiB, an L2 cache's worth.
  static constexpr int64_t kPositions = 512;

  size_t packed_elements(const Dims& w) const {
    const int64_t groups = node_.int_or("group", 1);
    const int64_t k = num_elements(w, 1, w.size());
    return packed_rows_elements(kernel_, w[0] / groups, k) * static_cast<size_t>(groups);
  }

  void pack_weights(const float* w, const Dims& dims, float* panels) const {
    const int64_t groups = node_.int_or("group", 1);
    const int64_t m = dims[0] / groups;
    const int64_t k = num_elements(dims, 1, dims.size());
    const size_t group_elements = packed_rows_elements(kernel_, m, k);
    for (int64_t g = 0; g < groups; ++g) {
      pack_rows(kernel_, {w + g * m * k, k, 1}, m, k, 1.0F,
                panels + static_cast<size_t>(g) * group_elements);
    }
  }

  const float* packed_weights(RunContext& context, int64_t k) const {
    if (weights_.defined()) return weights_.data<float>().data();
    const size_t offset = aligned(packed_columns_elements(kernel_, kPositions, k) * sizeof(float));
    auto* panels = reinterpret_cast<float*>(context.scratch.data() + offset);
    pack_weights(context.inputs[1].as<float>(), context.inputs[1].dims, panels);
    return panels;
  }

  /// Positions [first, first + count) as columns, in panels of tile_n: row (c, i, j, k) of a panel
  /// holds that tap of tile_n positions.
  void unroll(const Window& w, const float* src, int64_t channels, int64_t image, int64_t first,
              int64_t count, int64_t k, float* panels) const {
    const int64_t width = kernel_.tile_n;
    parallel_for((count + width - 1) / width, 4, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) {
        float* to = panels + panel * width * k;
        const int64_t filled = std::min(width, count - panel * width);
        for (int64_t c = 0; c < channels; ++c) {
          for (int64_t i = 0; i < w.kernel[0]; ++i) {
            for (int64_t j = 0; j < w.kernel[1]; ++j) {
              for (int64_t l = 0; l < w.kernel[2]; ++l, to += width) {
                gather_tap(w, src + c * image, {i, j, l}, first + panel * width, filled, to);
                std::fill(to + filled, to + width, 0.0F);
              }
            }
          }
        }
      }
    });
  }

  static void gather_tap(const Window& w, const float* src, const Triple& tap, int64_t first,
                         int64_t count, float* to) {
    const int64_t plane = w.out[1] * w.out[2];
    Triple o{first / plane, first % plane / w.out[2], first % w.out[2]};
    for (int64_t at = 0; at < count; ++at) {
      int64_t from = 0;
      bool inside = true;
      for (size_t s = 0; s < 3; ++s) {
        const int64_t i = o[s] * w.stride[s] - w.pad_begin[s] + tap[s] * w.dilation[s];
        inside = inside && i >= 0 && i < w.in[s];
        from = from * w.in[s] + i;
      }
      to[at] = inside ? src[from] : 0.0F;
      if (++o[2] == w.out[2]) {
        o[2] = 0;
        if (++o[1] == w.out[1]) {
          o[1] = 0;
          ++o[0];
        }
      }
    }
  }

  static void fill_bias(RunContext& context, int64_t first, int64_t m, int64_t positions,
                        float* dst) {
    const float* bias = present(context.inputs, 2) ? context.inputs[2].as<float>() : nullptr;
    for (int64_t i = 0; i < m; ++i) {
      std::fill_n(dst + i * positions, positions, bias != nullptr ? bias[first + i] : 0.0F);
    }
  }

  void finish(RunContext& context, int64_t offset, int64_t count, float* dst) const {
    if (present(context.inputs, 3)) {
      const float* residual = context.inputs[3].as<float>() + offset;
      NARROW_SIMD
      for (int64_t i = 0; i < count; ++i) dst[i] += residual[i];
    }
    activation_.apply(dst, count);
  }

  const GemmKernel& kernel_ = gemm_kernel();
  Tensor weights_;
};

/// The definition, o = i * stride - pad + k * dilation turned around: each output gathers.
class ReferenceConvTranspose final : public Step {
 public:
  ReferenceConvTranspose(const Graph&, const Node& node) : node_(node) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims>) const override {
    const Dims& w = inputs[1];
    return num_elements(inputs[0]) * num_elements(w, 1, w.size());
  }
  void run(RunContext& context) const override {
    visit(Floating{}, context.inputs[0].dtype,
          [&]<class T>(std::type_identity<T>) { run_typed<T>(context); });
  }

 private:
  template <class T>
  void run_typed(RunContext& context) const {
    const TensorView& x = context.inputs[0];
    const TensorView& w = context.inputs[1];
    const TensorView& y = context.outputs[0];
    const ConvGeometry geometry = conv_transpose_geometry(node_, x.dims, w.dims);
    const Window window = make_window(geometry, x.dims);
    const ImageView in = image_view(x);
    const ImageView taps = image_view(w);
    const ImageView out = image_view(y);
    const int64_t in_per_group = in.channels / geometry.group;
    const int64_t out_per_group = w.dims[1];
    parallel_for(out.batch * out.channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) {
        const int64_t n = index / out.channels;
        const int64_t m = index % out.channels;
        const int64_t first_channel = m / out_per_group * in_per_group;
        const T* src = x.as<T>() + n * in.batch_stride + first_channel * in.channel_stride;
        const T* weights =
            w.as<T>() + first_channel * taps.batch_stride + m % out_per_group * taps.channel_stride;
        T* dst = y.as<T>() + n * out.batch_stride + m * out.channel_stride;
        const T bias = present(context.inputs, 2) ? context.inputs[2].as<T>()[m] : T{0};
        fill(out, dst, bias);
        for (int64_t c = 0; c < in_per_group; ++c) {
          scatter(window, in, taps, out, src + c * in.channel_stride,
                  weights + c * taps.batch_stride, dst);
        }
      }
    });
  }

  template <class T>
  static void fill(const ImageView& out, T* dst, T value) {
    for (int64_t a = 0; a < out.extent[0]; ++a) {
      for (int64_t b = 0; b < out.extent[1]; ++b) {
        for (int64_t c = 0; c < out.extent[2]; ++c) {
          dst[a * out.stride[0] + b * out.stride[1] + c * out.stride[2]] = value;
        }
      }
    }
  }

  /// Adds one input channel's contribution to one output channel.
  template <class T>
  static void scatter(const Window& w, const ImageView& in, const ImageView& taps,
                      const ImageView& out, const T* src, const T* weights, T* dst) {
    const auto target = [&](size_t s, int64_t i, int64_t k) {
      return i * w.stride[s] - w.pad_begin[s] + k * w.dilation[s];
    };
    const auto outside = [&](size_t s, int64_t o) { return o < 0 || o >= out.extent[s]; };
    for (int64_t a = 0; a < w.kernel[0]; ++a) {
      for (int64_t b = 0; b < w.kernel[1]; ++b) {
        for (int64_t c = 0; c < w.kernel[2]; ++c) {
          const T weight = weights[a * taps.stride[0] + b * taps.stride[1] + c * taps.stride[2]];
          for (int64_t i = 0; i < in.extent[0]; ++i) {
            const int64_t oi = target(0, i, a);
            if (outside(0, oi)) continue;
            for (int64_t j = 0; j < in.extent[1]; ++j) {
              const int64_t oj = target(1, j, b);
              if (outside(1, oj)) continue;
              const T* row = src + i * in.stride[0] + j * in.stride[1];
              T* to = dst + oi * out.stride[0] + oj * out.stride[1];
              for (int64_t l = 0; l < in.extent[2]; ++l) {
                const int64_t ol = target(2, l, c);
                if (!outside(2, ol)) to[ol * out.stride[2]] += weight * row[l * in.stride[2]];
              }
            }
          }
        }
      }
    }
  }

  Node node_;
};

Refusal accept_float_conv(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = accept<Floating>(graph, node, options); !why.empty()) return why;
  if (Refusal why = refuse_activation(node); !why.empty()) return why;
  if (node.has("activation") && input_dtype(graph, node, 0) != DType::float32) {
    return refuse_dtype(graph, node, 0);
  }
  return refuse_spatial_rank(graph, node, 0);
}

Refusal accept_im2col(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  if (Refusal why = require_dtype(graph, node, 0, {DType::float32}); !why.empty()) return why;
  return accept_float_conv(graph, node, options);
}

Refusal accept_half_conv(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = accept_half<>(graph, node, options); !why.empty()) return why;
  return refuse_spatial_rank(graph, node, 0);
}

Refusal accept_conv_transpose(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal why = accept<Floating>(graph, node, options); !why.empty()) return why;
  return refuse_spatial_rank(graph, node, 0);
}

const OpImpl kRows[] = {
    {"", "Conv", "im2col", accept_im2col, make<Im2colConv>},
    {"", "Conv", "reference:float16", accept_half_conv, make_half<ReferenceConv>},
    {"", "Conv", "reference", accept_float_conv, make<ReferenceConv>},
    {"narrow", "FusedConv", "im2col", accept_im2col, make<Im2colConv>},
    {"narrow", "FusedConv", "reference:float16", accept_half_conv, make_half<ReferenceConv>},
    {"narrow", "FusedConv", "reference", accept_float_conv, make<ReferenceConv>},
    {"", "ConvTranspose", "reference:float16", accept_half_conv, make_half<ReferenceConvTranspose>},
    {"", "ConvTranspose", "reference", accept_conv_transpose, make<ReferenceConvTranspose>},
};

}  // namespace

std::span<const OpImpl> conv_rows() {
  return kRows;
}

}  // namespace narrow::ops
