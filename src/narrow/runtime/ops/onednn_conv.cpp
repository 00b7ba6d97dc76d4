// SPDX-License-Identifier: Apache-2.0
// Conv, narrow.FusedConv and ConvTranspose through oneDNN: channels_last images, weights in the
// format that the primitive prefers, activation and residual as post-operations.
#include "narrow/runtime/ops/rows.h"

#if defined(NARROW_ONEDNN)

#include <cstring>

#include "narrow/runtime/ops/activation.h"
#include "narrow/runtime/ops/onednn.h"
#include "narrow/runtime/ops/onednn_post_ops.h"
#include "narrow/runtime/ops/window.h"

namespace narrow::ops {
namespace {

using dnnl::memory;

constexpr size_t kBias = 2;
constexpr size_t kResidual = 3;

memory::dims to_dims(std::span<const int64_t> values) {
  return {values.begin(), values.end()};
}

/// oneDNN counts the holes between taps.
memory::dims holes(const Dims& dilations) {
  memory::dims h(dilations.begin(), dilations.end());
  for (auto& d : h) d -= 1;
  return h;
}

/// Weights [M, C / group, kernel...] with the group as an axis of its own.
memory::desc conv_weights(const Dims& w, int64_t group, memory::format_tag format,
                          onednn::DataType type = onednn::DataType::f32) {
  memory::dims dims = to_dims(w);
  if (group > 1) {
    dims[0] /= group;
    dims.insert(dims.begin(), group);
  }
  if (format == memory::format_tag::any) return {dims, type, format};
  return onednn::strided(dims, row_major_strides(dims));
}

/// ConvTranspose's [C, M / group, kernel...]: oneDNN wants the output channels first.
memory::desc transposed_weights(const Dims& w, int64_t group, memory::format_tag format) {
  const int64_t in = w[0] / group;
  Dims dims{group, w[1], in};
  dims.insert(dims.end(), w.begin() + 2, w.end());
  const int64_t window = num_elements(w, 2, w.size());
  Dims strides{in * w[1] * window, window, w[1] * window};
  const Dims inner = row_major_strides(std::span(w).subspan(2));
  strides.insert(strides.end(), inner.begin(), inner.end());
  if (group == 1) {
    dims.erase(dims.begin());
    strides.erase(strides.begin());
  }
  if (format == memory::format_tag::any) return {to_dims(dims), memory::data_type::f32, format};
  return onednn::strided(dims, strides);
}

class OneDnnConv final : public Step {
 public:
  OneDnnConv(const Graph& graph, const Node& node, bool bfloat16 = false)
      : node_(node),
        transposed_(node.op == "ConvTranspose"),
        bfloat16_(bfloat16),
        activation_(activation_of(node)) {
    const Tensor& w = *graph.constant(node.inputs[1]);
    weight_dims_ = w.dims();
    group_ = node.int_or("group", 1);
    has_bias_ = node.input(kBias) != kNoId;
    has_residual_ = node.input(kResidual) != kNoId;
    onednn::guarded([&] {
      weights_ = std::make_unique<onednn::PackedWeights>(w, weights(memory::format_tag::undef));
    });
  }

  Layout input_layout(size_t i) const override {
    return i == 0 || i == kResidual ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  /// The sum is made in place of the residual.
  int aliases(size_t output) const override {
    return output == 0 && has_residual_ ? static_cast<int>(kResidual) : -1;
  }
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    const Dims& counted = transposed_ ? inputs[0] : outputs[0];
    return num_elements(counted) * num_elements(weight_dims_, 1, weight_dims_.size());
  }
  size_t packed_bytes() const override { return weights_->packed_bytes(); }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    const int64_t elements = num_elements(inputs[0]);
    return elements == 0 ? 0 : onednn::scratch_with_source(*prepared(inputs[0]), elements);
  }

  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& y = context.outputs[0];
    if (y.elements() == 0) return;
    if (has_residual_ && context.inputs[kResidual].data != y.data) {
      std::memcpy(y.data, context.inputs[kResidual].data, view_bytes(y));
    }
    const auto primitive = prepared(x.dims);
    std::span<std::byte> scratch = context.scratch;
    void* pointers[3] = {onednn::source(*primitive, x.as<float>(), x.elements(), scratch), y.data,
                         nullptr};
    if (has_bias_) pointers[2] = context.inputs[kBias].data;
    primitive->run({pointers, has_bias_ ? size_t{3} : size_t{2}}, scratch);
  }

 private:
  memory::desc weights(memory::format_tag format) const {
    return transposed_ ? transposed_weights(weight_dims_, group_, format)
                       : conv_weights(weight_dims_, group_, format);
  }

  std::shared_ptr<const onednn::Prepared> prepared(const Dims& x) const {
    onednn::PreparedCache::Key key(x.begin(), x.end());
    key.push_back(current_threads());  // oneDNN divides the work when a primitive is made
    return cache_.find(key, [&] { return transposed_ ? make_transposed(x) : make_conv(x); });
  }

  std::shared_ptr<const onednn::Prepared> make_conv(const Dims& x) const {
    const ConvGeometry g = conv_geometry(node_, x, weight_dims_);
    const memory::desc bias = bias_desc(weight_dims_[0]);
    const memory::desc dst = onednn::channels_last(output_dims(x, weight_dims_[0], g));
    using Conv = dnnl::convolution_forward;
    const auto pd = onednn::choose_type(bfloat16_, [&](onednn::DataType type) {
      const memory::desc w = conv_weights(weight_dims_, group_, memory::format_tag::any, type);
      const Conv::desc desc(dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct,
                            onednn::channels_last(x, type), w, bias, dst, to_dims(g.strides),
                            holes(g.dilations), to_dims(g.pads_begin), to_dims(g.pads_end));
      return Conv::primitive_desc(desc, attributes(), onednn::engine());
    });
    return finish(pd, pd.src_desc(), dst, bias);
  }

  std::shared_ptr<const onednn::Prepared> make_transposed(const Dims& x) const {
    const ConvGeometry g = conv_transpose_geometry(node_, x, weight_dims_);
    const int64_t channels = weight_dims_[1] * group_;
    const memory::desc bias = bias_desc(channels);
    const memory::desc src = onednn::channels_last(x);
    const memory::desc dst = onednn::channels_last(output_dims(x, channels, g));
    // The pads that make input and output extents agree, output_padding included.
    memory::dims pads_end(g.spatial_rank());
    for (size_t i = 0; i < pads_end.size(); ++i) {
      pads_end[i] = (x[i + 2] - 1) * g.strides[i] + g.reach(i) - g.pads_begin[i] - g.output[i];
    }
    using Deconv = dnnl::deconvolution_forward;
    const Deconv::desc desc(dnnl::prop_kind::forward_inference,
                            dnnl::algorithm::deconvolution_direct, src,
                            weights(memory::format_tag::any), bias, dst, to_dims(g.strides),
                            holes(g.dilations), to_dims(g.pads_begin), pads_end);
    return finish(Deconv::primitive_desc(desc, attributes(), onednn::engine()), src, dst, bias);
  }

  template <class PrimitiveDesc>
  std::shared_ptr<const onednn::Prepared> finish(const PrimitiveDesc& pd, const memory::desc& src,
                                                 const memory::desc& dst,
                                                 const memory::desc& bias) const {
    using Primitive =
        std::conditional_t<std::is_same_v<PrimitiveDesc, dnnl::convolution_forward::primitive_desc>,
                           dnnl::convolution_forward, dnnl::deconvolution_forward>;
    std::vector<onednn::Argument> arguments{{DNNL_ARG_SRC, src}, {DNNL_ARG_DST, dst}};
    if (has_bias_) arguments.push_back({DNNL_ARG_BIAS, bias});
    return std::make_shared<const onednn::Prepared>(
        Primitive(pd), std::move(arguments),
        std::vector<std::pair<int, memory>>{
            {DNNL_ARG_WEIGHTS, weights_->in_format(pd.weights_desc())}},
        pd.scratchpad_desc().get_size());
  }

  memory::desc bias_desc(int64_t channels) const {
    if (!has_bias_) return {};
    return {{channels}, memory::data_type::f32, memory::format_tag::a};
  }

  static Dims output_dims(const Dims& x, int64_t channels, const ConvGeometry& g) {
    Dims dims{x[0], channels};
    dims.insert(dims.end(), g.output.begin(), g.output.end());
    return dims;
  }

  dnnl::primitive_attr attributes() const {
    return onednn::attributes_of(activation_,
                                 has_residual_ ? onednn::Residual::yes : onednn::Residual::no);
  }

  Node node_;
  bool transposed_;
  bool bfloat16_;
  Activation activation_;
  Dims weight_dims_;
  int64_t group_ = 1;
  bool has_bias_ = false;
  bool has_residual_ = false;
  std::unique_ptr<onednn::PackedWeights> weights_;
  onednn::PreparedCache cache_;
};

Refusal accept_conv(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only reference rows are asked for";
  if (Refusal why = require_dtype(graph, node, 0, {DType::float32}); !why.empty()) return why;
  if (graph.constant(node.input(1)) == nullptr) return "the weights are no constant";
  if (Refusal why = refuse_activation(node); !why.empty()) return why;
  if (node.input(kResidual) != kNoId) {
    if (Refusal why = onednn::refuse_residual(); !why.empty()) return why;
  }
  return refuse_spatial_rank(graph, node, 0);
}

Refusal accept_bfloat16(const Graph& graph, const Node& node, const StepOptions& options) {
  return options.bfloat16 ? accept_conv(graph, node, options) : "bfloat16 was not asked for";
}

std::unique_ptr<Step> make_bfloat16(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<OneDnnConv>(graph, node, true);
}

const OpImpl kRows[] = {
    {"", "Conv", "onednn:bfloat16", accept_bfloat16, make_bfloat16},
    {"narrow", "FusedConv", "onednn:bfloat16", accept_bfloat16, make_bfloat16},
    {"", "Conv", "onednn", accept_conv, make<OneDnnConv>},
    {"narrow", "FusedConv", "onednn", accept_conv, make<OneDnnConv>},
    {"", "ConvTranspose", "onednn", accept_conv, make<OneDnnConv>},
};

}  // namespace

std::span<const OpImpl> onednn_conv_rows() {
  return kRows;
}

}  // namespace narrow::ops

#else

namespace narrow::ops {
std::span<const OpImpl> onednn_conv_rows() {
  return {};
}
}  // namespace narrow::ops

#endif  // NARROW_ONEDNN
