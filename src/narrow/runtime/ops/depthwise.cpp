// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution without oneDNN: one weight per channel and tap, channels side by side.
#include <algorithm>

#include "narrow/runtime/ops/activation.h"
#include "narrow/runtime/ops/rows.h"
#include "narrow/runtime/ops/window.h"

namespace narrow::ops {
namespace {

class DepthwiseConv final : public Step {
 public:
  DepthwiseConv(const Graph& graph, const Node& node)
      : node_(node), activation_(activation_of(node)) {
    const Tensor& w = *graph.constant(node.inputs[1]);
    weight_dims_ = w.dims();
    const int64_t channels = w.dim(0);
    const int64_t taps = num_elements(w.dims(), 1, w.rank());
    weights_ = Tensor(DType::float32, {taps, channels});
    const auto from = w.data<float>();
    auto to = weights_.mutable_data<float>();
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < taps; ++t) to[t * channels + c] = from[c * taps + t];
    }
  }
  Layout input_layout(size_t i) const override {
    return i == 0 || i == 3 ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  size_t packed_bytes() const override { return weights_.bytes(); }
  int64_t macs(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return num_elements(outputs[0]) * weights_.dim(0);
  }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const Window window = make_window(conv_geometry(node_, x.dims, weight_dims_), x.dims);
    const ImageView in = image_view(x);
    const int64_t pixels = window.out[0] * window.out[1] * window.out[2];
    const int64_t channels = in.channels;
    const int64_t work = channels * weights_.dim(0);
    parallel_for(in.batch * pixels, std::max<int64_t>(1, kBlockElements / (work + 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     const int64_t p = i % pixels;
                     const Triple o{p / (window.out[1] * window.out[2]),
                                    p / window.out[2] % window.out[1], p % window.out[2]};
                     pixel(context, window, in, x.as<float>() + i / pixels * in.batch_stride, o,
                           i * channels);
                   }
                 });
  }

 private:
  void pixel(RunContext& context, const Window& w, const ImageView& in, const float* src,
             const Triple& o, int64_t at) const {
    const int64_t channels = in.channels;
    float* y = context.outputs[0].as<float>() + at;
    if (present(context.inputs, 2)) {
      std::copy_n(context.inputs[2].as<float>(), channels, y);
    } else {
      std::fill_n(y, channels, 0.0F);
    }
    Triple first;
    Triple last;
    for (size_t s = 0; s < 3; ++s) w.clip(s, o[s], first[s], last[s]);
    const auto position = [&](size_t s, int64_t k) {
      return (o[s] * w.stride[s] - w.pad_begin[s] + k * w.dilation[s]) * in.stride[s];
    };
    for (int64_t a = first[0]; a < last[0]; ++a) {
      for (int64_t b = first[1]; b < last[1]; ++b) {
        for (int64_t c = first[2]; c < last[2]; ++c) {
          const float* row = src + position(0, a) + position(1, b) + position(2, c);
          const int64_t tap = (a * w.kernel[1] + b) * w.kernel[2] + c;
          const float* weights = weights_.data<float>().data() + tap * channels;
          NARROW_SIMD
          for (int64_t i = 0; i < channels; ++i) y[i] += row[i] * weights[i];
        }
      }
    }
    if (present(context.inputs, 3)) {
      const float* residual = context.inputs[3].as<float>() + at;
      NARROW_SIMD
      for (int64_t i = 0; i < channels; ++i) y[i] += residual[i];
    }
    activation_.apply(y, channels);
  }

  Node node_;
  Activation activation_;
  Dims weight_dims_;
  Tensor weights_;  // [taps, channels]
};

Refusal accept_depthwise(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  if (Refusal why = require_dtype(graph, node, 0, {DType::float32}); !why.empty()) return why;
  const Tensor* w = graph.constant(node.input(1));
  if (w == nullptr) return "the weights are no constant";
  if (w->rank() < 3 || w->dim(1) != 1 || w->dim(0) != node.int_or("group", 1)) {
    return "not one channel per group";
  }
  if (Refusal why = refuse_activation(node); !why.empty()) return why;
  return refuse_spatial_rank(graph, node, 0);
}

const OpImpl kRows[] = {
    {"", "Conv", "depthwise", accept_depthwise, make<DepthwiseConv>},
    {"narrow", "FusedConv", "depthwise", accept_depthwise, make<DepthwiseConv>},
};

}  // namespace

std::span<const OpImpl> depthwise_rows() {
  return kRows;
}

}  // namespace narrow::ops
