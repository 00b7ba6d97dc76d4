// SPDX-License-Identifier: Apache-2.0
// WConv, WGemm: float activations, integer weights per tensor, per channel or in groups along the
// reduction.
#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/kernels/weight_only.h"
#include "narrow/quant/packing.h"
#include "narrow/runtime/ops/integer/conv_form.h"
#include "narrow/runtime/ops/integer/operands.h"

namespace narrow::integer {
namespace {

// Inputs of both operators.
constexpr size_t kX = 0;
constexpr size_t kW = 1;
constexpr size_t kBias = 4;

bool transposed(const Node& node) {
  return node.int_or("transB", 0) != 0;
}

bool is_conv(const Node& node) {
  return node.op == "WConv";
}

/// Weights as a matrix [n, k] whatever their shape: element (c, i) stands at c * column + i * step.
struct MatrixView {
  int64_t n;
  int64_t k;
  int64_t column;
  int64_t step;
};

MatrixView view_of(const Node& node, const Dims& w) {
  if (is_conv(node)) return {w[0], num_elements(w, 1, w.size()), num_elements(w, 1, w.size()), 1};
  if (transposed(node)) return {w[0], w[1], w[1], 1};
  return {w[1], w[0], 1, w[1]};
}

/// Which scale a weight has: per tensor, per column, or per group of `block` along k.
struct ScaleView {
  int64_t block = 0;  // 0: no groups
  int64_t groups = 1;
  int64_t column = 0;
  int64_t step = 0;
  int64_t at(int64_t c, int64_t group) const { return c * column + group * step; }
};

int64_t group_count(int64_t k, int64_t block) {
  return block == 0 ? 1 : (k + block - 1) / block;
}

ScaleView scales_of(const Node& node, const MatrixView& w, int64_t scales) {
  ScaleView s;
  s.block = node.int_or("block_size", 0);
  s.groups = group_count(w.k, s.block);
  if (s.block == 0) {
    s.column = scales == 1 ? 0 : 1;
  } else if (is_conv(node) || transposed(node)) {
    s.column = s.groups;  // [n, groups]
    s.step = 1;
  } else {
    s.column = 1;  // [groups, n]
    s.step = w.n;
  }
  return s;
}

/// Everything as plain arrays: codes [n][k], scale and zero [n][groups].
struct WeightOnly {
  MatrixView w;
  int64_t groups = 1;
  int64_t block = 0;
  int bits = 8;
  std::vector<int8_t> codes;
  std::vector<float> scale;
  std::vector<float> zero;
  std::vector<float> bias;
  int64_t group_of(int64_t k) const { return block == 0 ? 0 : k / block; }
};

WeightOnly read_weight_only(const Graph& graph, const Node& node) {
  const Tensor& codes = *graph.constant(node.input(kW));
  WeightOnly out;
  out.w = view_of(node, codes.dims());
  const std::vector<float> scale = read_scales(graph, node, kW + 1);
  const Tensor* zero_tensor = graph.constant(node.input(kW + 2));
  const std::vector<int64_t> zero =
      zero_tensor == nullptr ? std::vector<int64_t>{} : zero_tensor->to_ints();
  const auto scale_count = static_cast<int64_t>(scale.size());
  const ScaleView scales = scales_of(node, out.w, scale_count);
  const ScaleView zeros = scales_of(node, out.w, static_cast<int64_t>(zero.size()));
  out.groups = scales.groups;
  out.block = scales.block;
  out.bits = bits(codes.dtype()) <= 4 ? 4 : 8;
  out.bias = read_float_bias(graph, node, kBias, out.w.n);
  std::vector<int32_t> values(static_cast<size_t>(codes.elements()));
  read_codes(codes, 0, values);
  const int32_t shift = codes.dtype() == DType::uint8 ? 128 : 0;  // bytes are stored as int8
  for (int64_t c = 0; c < out.w.n; ++c) {
    for (int64_t k = 0; k < out.w.k; ++k) {
      out.codes.push_back(static_cast<int8_t>(values[c * out.w.column + k * out.w.step] - shift));
    }
    for (int64_t g = 0; g < out.groups; ++g) {
      out.scale.push_back(scale[scales.at(c, g)]);
      const int64_t z = zero.empty() ? 0 : zero[zeros.at(c, g)];
      out.zero.push_back(static_cast<float>(z - shift));
    }
  }
  return out;
}

/// The columns [first, first + count) packed, k in the order that `source_of` gives.
template <class SourceOf>
kernels::PackedWeightOnly pack(const WeightOnly& w, int64_t first, int64_t count,
                               const SourceOf& source_of) {
  std::vector<int8_t> codes;
  std::vector<int32_t> group;
  for (int64_t c = first; c < first + count; ++c) {
    for (int64_t k = 0; k < w.w.k; ++k) codes.push_back(w.codes[c * w.w.k + source_of(k)]);
  }
  for (int64_t k = 0; k < w.w.k && w.groups > 1; ++k) {
    group.push_back(static_cast<int32_t>(w.group_of(source_of(k))));
  }
  kernels::WeightOnlyCodes in;
  in.n = count;
  in.k = w.w.k;
  in.bits = w.bits;
  in.codes = codes;
  in.group = group;
  in.groups = w.groups;
  const std::span<const float> scale(w.scale);
  const std::span<const float> zero(w.zero);
  const std::span<const float> bias(w.bias);
  in.scale = scale.subspan(first * w.groups, count * w.groups);
  in.zero = zero.subspan(first * w.groups, count * w.groups);
  return kernels::pack_weight_only(in, bias.empty() ? bias : bias.subspan(first, count));
}

void check_columns(const Node& node, const Dims& x, int64_t k) {
  if (!x.empty() && x.back() == k) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("node '{}' ({}): input {} does not fit weights of {} rows", node.name,
                          node.op, to_string(x), k));
}

class GemmStep final : public Step {
 public:
  GemmStep(const Graph& graph, const Node& node, Isa isa)
      : node_(node), kernels_(kernels_for(isa)) {
    const WeightOnly w = read_weight_only(graph, node);
    packed_ = pack(w, 0, w.w.n, [](int64_t k) { return k; });
  }
  int64_t macs(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return num_elements(outputs[0]) * packed_.k;
  }
  size_t packed_bytes() const override { return packed_.bytes(); }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[kX];
    check_columns(node_, x.dims, packed_.k);
    kernels::run_weight_only_gemm(kernels_, packed_, x.as<float>(),
                                  num_elements(x.dims, 0, x.dims.size() - 1),
                                  context.outputs[0].as<float>());
  }

 private:
  Node node_;
  const kernels::KernelSet& kernels_;
  kernels::PackedWeightOnly packed_;
};

class ConvStep final : public Step {
 public:
  ConvStep(const Graph& graph, const Node& node, Isa isa)
      : kernels_(kernels_for(isa)), form_(node, graph.constant(node.input(kW))->dims()) {
    const WeightOnly w = read_weight_only(graph, node);
    const int64_t channels = form_.fixed().group_channels();
    const int64_t window = form_.fixed().window();
    const int64_t filters = form_.fixed().group_filters();
    for (int64_t g = 0; g < form_.fixed().groups; ++g) {
      // The kernels walk positions, then channels; the file has channels, then positions.
      packed_.push_back(pack(w, g * filters, filters,
                             [&](int64_t k) { return k % channels * window + k / channels; }));
    }
  }
  int64_t macs(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return form_.macs(outputs);
  }
  size_t packed_bytes() const override {
    size_t bytes = 0;
    for (const auto& p : packed_) bytes += p.bytes();
    return bytes;
  }
  Layout input_layout(size_t i) const override {
    return i == kX ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    return kernels::weight_only_conv_scratch_bytes(form_.problem(inputs[kX], outputs[0]));
  }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[kX];
    const TensorView& y = context.outputs[0];
    kernels::run_weight_only_conv(kernels_, form_.problem(x.dims, y.dims), packed_, x.as<float>(),
                                  y.as<float>(), context.scratch);
  }

 private:
  const kernels::KernelSet& kernels_;
  ConvForm form_;
  std::vector<kernels::PackedWeightOnly> packed_;
};

// --- the specification --------------------------------------------------------------------------

/// Weights as floats, as DequantizeLinear has them: [n][k].
std::vector<float> dequantized(const WeightOnly& w) {
  std::vector<float> out;
  for (int64_t c = 0; c < w.w.n; ++c) {
    for (int64_t k = 0; k < w.w.k; ++k) {
      const int64_t g = c * w.groups + w.group_of(k);
      out.push_back((static_cast<float>(w.codes[c * w.w.k + k]) - w.zero[g]) * w.scale[g]);
    }
  }
  return out;
}

class ReferenceGemmStep final : public Step {
 public:
  ReferenceGemmStep(const Graph& graph, const Node& node) : node_(node) {
    const WeightOnly w = read_weight_only(graph, node);
    n_ = w.w.n;
    k_ = w.w.k;
    weights_ = dequantized(w);
    bias_ = w.bias;
  }
  int64_t macs(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return num_elements(outputs[0]) * k_;
  }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[kX];
    check_columns(node_, x.dims, k_);
    const int64_t m = num_elements(x.dims, 0, x.dims.size() - 1);
    float* y = context.outputs[0].as<float>();
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n_; ++j) {
        float acc = 0;
        for (int64_t k = 0; k < k_; ++k) acc += x.as<float>()[i * k_ + k] * weights_[j * k_ + k];
        *y++ = bias_.empty() ? acc : acc + bias_[j];
      }
    }
  }

 private:
  Node node_;
  int64_t n_ = 0;
  int64_t k_ = 0;
  std::vector<float> weights_;
  std::vector<float> bias_;
};

class ReferenceConvStep final : public Step {
 public:
  ReferenceConvStep(const Graph& graph, const Node& node)
      : form_(node, graph.constant(node.input(kW))->dims()) {
    const WeightOnly w = read_weight_only(graph, node);
    weights_ = dequantized(w);
    bias_ = w.bias;
  }
  int64_t macs(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return form_.macs(outputs);
  }
  void run(RunContext& context) const override {
    const kernels::ConvProblem p = form_.problem(context.inputs[kX].dims, context.outputs[0].dims);
    float* y = context.outputs[0].as<float>();
    const int64_t pixels = p.out[0] * p.out[1] * p.out[2];
    for (int64_t i = 0; i < p.batch * p.filters * pixels; ++i) {
      const int64_t f = i / pixels % p.filters;
      const int64_t o = i % pixels;
      const kernels::Extents at = {o / (p.out[1] * p.out[2]), o / p.out[2] % p.out[1],
                                   o % p.out[2]};
      const float acc = sum(p, context.inputs[kX].as<float>(), i / (pixels * p.filters), f, at);
      y[i] = bias_.empty() ? acc : acc + bias_[f];
    }
  }

 private:
  float sum(const kernels::ConvProblem& p, const float* x, int64_t image, int64_t f,
            const kernels::Extents& o) const {
    const int64_t channels = p.group_channels();
    const float* w = weights_.data() + f * channels * p.window();
    float acc = 0;
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t plane = image * p.channels + f / p.group_filters() * channels + c;
      for (int64_t k = 0; k < p.window(); ++k, ++w) {
        const kernels::Extents tap = {k / (p.kernel[1] * p.kernel[2]),
                                      k / p.kernel[2] % p.kernel[1], k % p.kernel[2]};
        int64_t at = plane;
        bool inside = true;
        for (int i = 0; i < 3; ++i) {
          const int64_t in = o[i] * p.stride[i] + tap[i] * p.dilation[i] - p.pad_begin[i];
          inside = inside && in >= 0 && in < p.in[i];
          at = at * p.in[i] + in;
        }
        if (inside) acc += x[at] * *w;
      }
    }
    return acc;
  }
  ConvForm form_;
  std::vector<float> weights_;
  std::vector<float> bias_;
};

// --- rows ---------------------------------------------------------------------------------------

Refusal accept_weights(const Graph& graph, const Node& node, const StepOptions&) {
  if (dtype_of(graph, node, kX) != DType::float32) return "the input is not float32";
  const Tensor* w = graph.constant(node.input(kW));
  if (w == nullptr) return "the weights are not constant";
  if (!is_integer(w->dtype()) || bits(w->dtype()) > 8) {
    return fmt::format("weights are {}", to_string(w->dtype()));
  }
  if (is_conv(node)) {
    if (Refusal r = refuse_conv_form(*w); !r.empty()) return r;
  } else if (w->rank() != 2) {
    return "the weights are no matrix";
  }
  const int64_t block = node.int_or("block_size", 0);
  if (block < 0) return "block_size is negative";
  const MatrixView view = view_of(node, w->dims());
  const int64_t wanted = view.n * group_count(view.k, block);
  for (const size_t i : {kW + 1, kW + 2}) {
    if (i > kW + 1 && node.input(i) == kNoId) continue;
    const Tensor* t = graph.constant(node.input(i));
    if (t == nullptr) return fmt::format("input {} is not constant", i);
    const bool one = block == 0 && t->elements() == 1;
    if (!one && t->elements() != wanted) {
      return fmt::format("input {} is {}, not one number for each of {} groups", i, t->describe(),
                         wanted);
    }
  }
  return refuse_bias(graph, node, kBias, view.n);
}

template <Isa isa>
Refusal accept(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  if (Refusal r = kernels::refuse_isa(isa); !r.empty()) return r;
  return accept_weights(graph, node, options);
}

template <class S, Isa isa>
std::unique_ptr<Step> make(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node, isa);
}

template <class S>
std::unique_ptr<Step> make_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node);
}

#define NARROW_WEIGHT_ONLY(isa)                                            \
  {"narrow", "WConv", #isa, accept<Isa::isa>, make<ConvStep, Isa::isa>}, { \
    "narrow", "WGemm", #isa, accept<Isa::isa>, make<GemmStep, Isa::isa>    \
  }

constexpr OpImpl kRows[] = {
#if defined(__x86_64__)
    NARROW_WEIGHT_ONLY(avx512_vnni),
    NARROW_WEIGHT_ONLY(avx2),
#endif
    NARROW_WEIGHT_ONLY(scalar),
    {"narrow", "WConv", "reference", accept_weights, make_reference<ReferenceConvStep>},
    {"narrow", "WGemm", "reference", accept_weights, make_reference<ReferenceGemmStep>},
};
#undef NARROW_WEIGHT_ONLY

}  // namespace

std::span<const OpImpl> weight_only_rows() {
  return kRows;
}

}  // namespace narrow::integer
