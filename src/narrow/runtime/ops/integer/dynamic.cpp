// SPDX-License-Identifier: Apache-2.0
// DynamicQConv, DynamicQGemm: float activations quantized to uint8 at run time by their own range,
// integer products, float results.
#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/kernels/ref/reference.h"
#include "narrow/quant/round.h"
#include "narrow/runtime/ops/integer/conv_form.h"
#include "narrow/runtime/ops/integer/operands.h"

namespace narrow::integer {
namespace {

// Inputs of both operators.
constexpr size_t kX = 0;
constexpr size_t kW = 1;
constexpr size_t kBias = 4;

// Values of one parallel block of elementwise work: some 10 us.
constexpr int64_t kBlock = 65536;

int64_t round_up(int64_t v, int64_t unit) {
  return (v + unit - 1) / unit * unit;
}

bool per_sample(const Node& node) {
  return node.string_or("granularity", "per_tensor") == "per_sample";
}

/// The grid that DynamicQuantizeLinear gives values in [lo, hi], lo <= 0 <= hi.
struct DynamicGrid {
  float scale = 1;
  int32_t zero_point = 0;
  DynamicGrid(float lo, float hi) : scale(hi == lo ? 1.0f : (hi - lo) / 255.0f) {
    const float zero = 0.0f - lo / scale;
    zero_point = zero > 0 ? round_half_even_int(std::min(zero, 255.0f)) : 0;  // NaN gives 0
  }
  kernels::QuantizeArgs args() const {
    return {scale, static_cast<float>(-zero_point), static_cast<float>(255 - zero_point),
            zero_point};
  }
};

DynamicGrid grid_of(const kernels::KernelSet& kernels, const float* x, int64_t count) {
  float lo = 0;
  float hi = 0;
  kernels.range(x, count, &lo, &hi);
  return {lo, hi};
}

/// What turns sums into floats: per column, in the order of the output.
struct Dequantizer {
  std::vector<int32_t> column;  // sums of code - zero_point
  std::vector<float> scale;
  std::vector<float> bias;

  /// Rows of sums in place to floats; `grid_at(row)` is the grid of that row's activations.
  template <class GridAt>
  void run(const kernels::KernelSet& kernels, float* y, int64_t rows, const GridAt& grid_at) const {
    const auto n = static_cast<int64_t>(scale.size());
    parallel_for(
        rows, std::max<int64_t>(kBlock / std::max<int64_t>(n, 1), 1),
        [&](int64_t begin, int64_t end) {
          for (int64_t r = begin; r < end; ++r) {
            const DynamicGrid grid = grid_at(r);
            const kernels::ScaleRowArgs args = {grid.zero_point, grid.scale, column.data(),
                                                scale.data(), bias.empty() ? nullptr : bias.data()};
            kernels.scale_row(y + r * n, reinterpret_cast<const int32_t*>(y + r * n), n, args);
          }
        });
  }
};

Dequantizer read_dequantizer(const Graph& graph, const Node& node, int64_t channel_axis) {
  const std::vector<int32_t> w = centered_weights(graph, node, kW, channel_axis);
  const Tensor& codes = *graph.constant(node.input(kW));
  const int64_t channels = codes.dim(channel_axis);
  const int64_t inner = num_elements(codes.dims(), channel_axis + 1, codes.rank());
  Dequantizer d;
  d.column.assign(static_cast<size_t>(channels), 0);
  for (size_t i = 0; i < w.size(); ++i) {
    d.column[static_cast<int64_t>(i) / inner % channels] += w[i];
  }
  d.scale = read_scales(graph, node, kW + 1);
  if (d.scale.size() == 1) d.scale.assign(static_cast<size_t>(channels), d.scale[0]);
  d.bias = read_float_bias(graph, node, kBias, channels);
  return d;
}

// --- DynamicQGemm -------------------------------------------------------------------------------

bool transposed(const Node& node) {
  return node.int_or("transB", 0) != 0;
}
int64_t column_axis(const Node& node) {
  return transposed(node) ? 0 : 1;
}

class GemmStep final : public Step {
 public:
  GemmStep(const Graph& graph, const Node& node, Isa isa)
      : kernels_(kernels_for(isa)),
        per_row_(per_sample(node)),
        dequantizer_(read_dequantizer(graph, node, column_axis(node))),
        packed_(pack_gemm_weights(read_weights(graph, node, kW, column_axis(node)),
                                  transposed(node), isa)),
        no_correction_(packed_.column_sums.size(), 0) {}

  int64_t macs(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    return inputs[kX].empty() ? 0 : num_elements(outputs[0]) * inputs[kX].back();
  }
  bool integer_macs() const override { return true; }
  size_t packed_bytes() const override { return packed_.bytes(); }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims>) const override {
    const int64_t m = rows(inputs[kX]);
    return static_cast<size_t>(grid_bytes(m) + round_up(m * pitch(), 64));
  }

  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[kX];
    const int64_t m = rows(x.dims);
    const int64_t k = packed_.shape.run_bytes;
    if (x.dims.empty() || x.dims.back() != k) {
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format("an input of {} does not fit weights of {} rows", to_string(x.dims), k));
    }
    auto* grids = reinterpret_cast<DynamicGrid*>(context.scratch.data());
    auto* codes = reinterpret_cast<uint8_t*>(context.scratch.data()) + grid_bytes(m);
    const float* values = x.as<float>();
    const DynamicGrid common = per_row_ ? DynamicGrid(0, 0) : grid_of(kernels_, values, m * k);
    parallel_for(m, std::max<int64_t>(kBlock / std::max<int64_t>(k, 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     grids[i] = per_row_ ? grid_of(kernels_, values + i * k, k) : common;
                     uint8_t* row = codes + i * pitch();
                     kernels_.quantize(row, values + i * k, k, grids[i].args());
                     std::fill(row + k, row + pitch(), uint8_t{0});
                   }
                 });
    multiply(codes, m, context.outputs[0].data);
    dequantizer_.run(kernels_, context.outputs[0].as<float>(), m,
                     [&](int64_t row) { return grids[row]; });
  }

 private:
  static int64_t rows(const Dims& x) { return x.empty() ? 0 : num_elements(x, 0, x.size() - 1); }
  static int64_t grid_bytes(int64_t m) {
    return round_up(m * static_cast<int64_t>(sizeof(DynamicGrid)), 64);
  }
  int64_t pitch() const { return packed_.shape.read_bytes(); }

  void multiply(const uint8_t* codes, int64_t m, std::byte* y) const {
    const int64_t zero = 0;
    kernels::IgemmProblem p;
    p.m = m;
    p.w = packed_.view();
    p.rows = [&](int64_t first, int64_t count, const uint8_t** pointers) {
      for (int64_t i = 0; i < count; ++i) pointers[i] = codes + (first + i) * pitch();
    };
    p.tap_offsets = {&zero, 1};
    p.epilogue.corr = no_correction_.data();
    p.epilogue.out = kernels::Out::s32;
    p.dst = y;
    p.ldc = packed_.shape.n;
    kernels::run_igemm(kernels_, p);
  }

  const kernels::KernelSet& kernels_;
  bool per_row_;
  Dequantizer dequantizer_;
  kernels::PackedMatrix packed_;
  std::vector<int32_t> no_correction_;
};

// --- DynamicQConv -------------------------------------------------------------------------------

class ConvStep final : public Step {
 public:
  ConvStep(const Graph& graph, const Node& node, Isa isa)
      : kernels_(kernels_for(isa)),
        per_image_(per_sample(node)),
        form_(node, graph.constant(node.input(kW))->dims()),
        dequantizer_(read_dequantizer(graph, node, 0)) {
    const WeightCodes w = read_weights(graph, node, kW, 0);
    depthwise_ = kernels::refuse_depthwise(form_.fixed(), w.zero).empty();
    if (depthwise_) {
      depthwise_weights_ = kernels::pack_depthwise_conv(form_.fixed(), w.codes);
      depthwise_columns_.corr.assign(depthwise_weights_.column_sums.size(), 0);
      return;
    }
    packed_ = kernels::pack_conv(form_.fixed(), w.codes, w.zero);
    for (const kernels::PackedMatrix& matrix : packed_.groups) {
      packed_.columns.emplace_back();
      packed_.columns.back().corr.assign(matrix.column_sums.size(), 0);
    }
  }

  int64_t macs(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return form_.macs(outputs);
  }
  bool integer_macs() const override { return true; }
  size_t packed_bytes() const override {
    return depthwise_ ? depthwise_weights_.bytes() : packed_.bytes();
  }
  Layout input_layout(size_t i) const override {
    return i == kX ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  size_t scratch_bytes(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    const kernels::ConvProblem p = piece(form_.problem(inputs[kX], outputs[0]));
    return static_cast<size_t>(round_up(p.in_values(), 64)) + kernels::conv_scratch_bytes(p);
  }

  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[kX];
    const TensorView& y = context.outputs[0];
    const kernels::ConvProblem whole = form_.problem(x.dims, y.dims);
    const kernels::ConvProblem p = piece(whole);
    const int64_t pieces = p.batch == 0 ? 0 : whole.batch / p.batch;
    auto* codes = reinterpret_cast<uint8_t*>(context.scratch.data());
    const auto space = context.scratch.subspan(static_cast<size_t>(round_up(p.in_values(), 64)));
    for (int64_t i = 0; i < pieces; ++i) {
      const float* values = x.as<float>() + i * p.in_values();
      const DynamicGrid grid = grid_of(kernels_, values, p.in_values());
      parallel_for(p.in_values(), kBlock, [&](int64_t begin, int64_t end) {
        kernels_.quantize(codes + begin, values + begin, end - begin, grid.args());
      });
      float* out = y.as<float>() + i * p.out_values();
      multiply(p, codes, static_cast<uint8_t>(grid.zero_point), out, space);
      dequantizer_.run(kernels_, out, p.out_pixels(), [&](int64_t) { return grid; });
    }
  }

 private:
  /// What shares one grid: an image, or all of them.
  kernels::ConvProblem piece(kernels::ConvProblem p) const {
    if (per_image_) p.batch = std::min<int64_t>(p.batch, 1);
    return p;
  }

  void multiply(const kernels::ConvProblem& p, const uint8_t* codes, uint8_t zero, float* y,
                std::span<std::byte> space) const {
    const kernels::ConvInput input{codes, 0, zero};
    kernels::ConvOutput output;
    output.data = y;
    output.out = kernels::Out::s32;
    if (depthwise_) {
      kernels::run_depthwise(kernels_, p, depthwise_weights_, depthwise_columns_, input, output,
                             space);
    } else {
      kernels::run_conv(kernels_, p, packed_, input, output, space);
    }
  }

  const kernels::KernelSet& kernels_;
  bool per_image_;
  ConvForm form_;
  Dequantizer dequantizer_;
  bool depthwise_ = false;
  kernels::PackedMatrix depthwise_weights_;
  kernels::Columns depthwise_columns_;
  kernels::PackedConv packed_{kernels::ConvRuns({}), {}, {}};
};

// --- the specification --------------------------------------------------------------------------

/// Quantizes by the plain formulas, sums in 64 bits.
class ReferenceStep : public Step {
 public:
  ReferenceStep(const Graph& graph, const Node& node, int64_t channel_axis)
      : per_sample_(per_sample(node)),
        weights_(centered_weights(graph, node, kW, channel_axis)),
        scale_(read_scales(graph, node, kW + 1)),
        bias_(read_float_bias(graph, node, kBias,
                              graph.constant(node.input(kW))->dim(channel_axis))) {}
  bool integer_macs() const override { return true; }

 protected:
  static DynamicGrid range_of(std::span<const float> x) {
    float lo = 0;
    float hi = 0;
    for (const float v : x) {
      lo = v < lo ? v : lo;
      hi = v > hi ? v : hi;
    }
    return {lo, hi};
  }
  static std::vector<int32_t> quantized(std::span<const float> x, const DynamicGrid& grid) {
    std::vector<int32_t> out;
    for (const float v : x) {
      const kernels::QuantizeArgs a = grid.args();
      float t = v / a.scale;
      t = t == t ? t : 0.0f;
      t = t < a.hi ? t : a.hi;
      t = t > a.lo ? t : a.lo;
      out.push_back(round_half_even_int(t));
    }
    return out;
  }
  float real(int64_t acc, const DynamicGrid& grid, int64_t channel) const {
    const float w = scale_[scale_.size() == 1 ? 0 : channel];
    const auto m = static_cast<float>(static_cast<double>(grid.scale) * static_cast<double>(w));
    const float t = static_cast<float>(acc) * m;
    return bias_.empty() ? t : t + bias_[channel];
  }
  bool per_sample_;
  std::vector<int32_t> weights_;
  std::vector<float> scale_;
  std::vector<float> bias_;
};

class ReferenceGemmStep final : public ReferenceStep {
 public:
  ReferenceGemmStep(const Graph& graph, const Node& node)
      : ReferenceStep(graph, node, column_axis(node)),
        trans_b_(transposed(node)),
        n_(graph.constant(node.input(kW))->dim(column_axis(node))) {}
  int64_t macs(std::span<const Dims> inputs, std::span<const Dims> outputs) const override {
    return inputs[kX].empty() ? 0 : num_elements(outputs[0]) * inputs[kX].back();
  }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[kX];
    const int64_t k = x.dims.back();
    const int64_t m = num_elements(x.dims, 0, x.dims.size() - 1);
    const std::span<const float> values(x.as<float>(), static_cast<size_t>(m * k));
    for (int64_t i = 0; i < m; ++i) {
      const std::span<const float> row = values.subspan(i * k, k);
      const DynamicGrid grid = range_of(per_sample_ ? row : values);
      std::vector<int64_t> acc(static_cast<size_t>(n_));
      kernels::ref::gemm({1, n_, k, trans_b_}, quantized(row, grid), weights_, {}, acc);
      for (int64_t j = 0; j < n_; ++j) {
        context.outputs[0].as<float>()[i * n_ + j] = real(acc[j], grid, j);
      }
    }
  }

 private:
  bool trans_b_;
  int64_t n_;
};

class ReferenceConvStep final : public ReferenceStep {
 public:
  ReferenceConvStep(const Graph& graph, const Node& node)
      : ReferenceStep(graph, node, 0), form_(node, graph.constant(node.input(kW))->dims()) {}
  int64_t macs(std::span<const Dims>, std::span<const Dims> outputs) const override {
    return form_.macs(outputs);
  }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[kX];
    kernels::ConvProblem p = form_.problem(x.dims, context.outputs[0].dims);
    const std::span<const float> values(x.as<float>(), static_cast<size_t>(x.elements()));
    const int64_t images = p.batch;
    p.batch = 1;
    const int64_t pixels = p.out_pixels();
    float* y = context.outputs[0].as<float>();
    for (int64_t i = 0; i < images; ++i) {
      const auto image = values.subspan(i * p.in_values(), p.in_values());
      const DynamicGrid grid = range_of(per_sample_ ? image : values);
      std::vector<int64_t> acc(static_cast<size_t>(p.out_values()));
      kernels::ref::conv(p, quantized(image, grid), weights_, {}, acc);
      for (size_t j = 0; j < acc.size(); ++j) {
        *y++ = real(acc[j], grid, static_cast<int64_t>(j) / pixels);
      }
    }
  }

 private:
  ConvForm form_;
};

// --- rows ---------------------------------------------------------------------------------------

Refusal accept_weights(const Graph& graph, const Node& node, int64_t channel_axis) {
  if (dtype_of(graph, node, kX) != DType::float32) return "the input is not float32";
  if (Refusal r = refuse_weights(graph, node, kW, channel_axis); !r.empty()) return r;
  return refuse_bias(graph, node, kBias, graph.constant(node.input(kW))->dim(channel_axis));
}

Refusal accept_gemm(const Graph& graph, const Node& node, const StepOptions&) {
  const Tensor* w = graph.constant(node.input(kW));
  if (w == nullptr || w->rank() != 2) return "the weights are no constant matrix";
  return accept_weights(graph, node, column_axis(node));
}

Refusal accept_conv(const Graph& graph, const Node& node, const StepOptions&) {
  if (Refusal r = accept_weights(graph, node, 0); !r.empty()) return r;
  return refuse_conv_form(*graph.constant(node.input(kW)));
}

/// A run-time zero_point may be any code: differences reach 255 both ways.
constexpr CodeRange kAnyDifference{-255, 255, 0};

Refusal accept_kernels(Isa isa, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  return kernels::refuse_isa(isa);
}

template <Isa isa>
Refusal accept_fast_gemm(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal r = accept_kernels(isa, options); !r.empty()) return r;
  if (Refusal r = accept_gemm(graph, node, options); !r.empty()) return r;
  const int64_t axis = column_axis(node);
  if (graph.constant(node.input(kW))->dim(1 - axis) > kernels::kMaxK) {
    return "the reduction is too long";
  }
  return refuse_overflow(graph, node, kAnyDifference, kW, axis, std::nullopt);
}

template <Isa isa>
Refusal accept_fast_conv(const Graph& graph, const Node& node, const StepOptions& options) {
  if (Refusal r = accept_kernels(isa, options); !r.empty()) return r;
  if (Refusal r = accept_conv(graph, node, options); !r.empty()) return r;
  const ConvForm form(node, graph.constant(node.input(kW))->dims());
  const kernels::MatrixShape shape = kernels::ConvRuns(form.fixed()).shape;
  if (shape.taps * shape.read_bytes() > kernels::kMaxK) return "the window is too large";
  return refuse_overflow(graph, node, kAnyDifference, kW, 0, std::nullopt);
}

template <class S, Isa isa>
std::unique_ptr<Step> make(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node, isa);
}

template <class S>
std::unique_ptr<Step> make_reference(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node);
}

#define NARROW_DYNAMIC(isa)                                                                        \
  {"narrow", "DynamicQConv", #isa ":igemm", accept_fast_conv<Isa::isa>, make<ConvStep, Isa::isa>}, \
  {                                                                                                \
    "narrow", "DynamicQGemm", #isa ":igemm", accept_fast_gemm<Isa::isa>, make<GemmStep, Isa::isa>  \
  }

constexpr OpImpl kRows[] = {
#if defined(__x86_64__)
    NARROW_DYNAMIC(amx_int8),
    NARROW_DYNAMIC(avx512_vnni),
    NARROW_DYNAMIC(avx_vnni),
    NARROW_DYNAMIC(avx2),
#endif
    NARROW_DYNAMIC(scalar),
    {"narrow", "DynamicQConv", "reference", accept_conv, make_reference<ReferenceConvStep>},
    {"narrow", "DynamicQGemm", "reference", accept_gemm, make_reference<ReferenceGemmStep>},
};
#undef NARROW_DYNAMIC

}  // namespace

std::span<const OpImpl> dynamic_rows() {
  return kRows;
}

}  // namespace narrow::integer
