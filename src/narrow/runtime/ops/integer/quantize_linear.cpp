// SPDX-License-Identifier: Apache-2.0
// QuantizeLinear and DequantizeLinear between float32 and 8-bit codes, with constant parameters.
// QuantizeLinear of an image writes channels-last codes, what the integer convolutions read.
#include <algorithm>
#include <array>

#include "narrow/core/parallel.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/runtime/ops/integer/operands.h"

namespace narrow::integer {
namespace {

// Elements of one parallel block: some 10 us of work.
constexpr int64_t kBlock = 65536;
// Pixels whose channels are interleaved at once: the codes stay in the L1 cache.
constexpr int64_t kTilePixels = 256;
constexpr int64_t kTileChannels = 16;

/// One grid, or one per index of an axis.
struct Grids {
  std::vector<float> scale;
  std::vector<int32_t> zero;  // as many
  DType dtype = DType::uint8;
  int64_t axis = 0;
  bool per_tensor() const { return scale.size() == 1; }

  kernels::QuantizeArgs quantize(size_t i) const {
    return {scale[i], static_cast<float>(integer_min(dtype) - zero[i]),
            static_cast<float>(integer_max(dtype) - zero[i]), zero[i]};
  }
  kernels::DequantizeArgs dequantize(size_t i) const {
    const bool is_signed = dtype == DType::int8;
    return {scale[i], zero[i] + (is_signed ? 128 : 0), static_cast<uint8_t>(is_signed ? 0x80 : 0)};
  }
};

Grids read_grids(const Graph& graph, const Node& node, DType dtype) {
  Grids g;
  g.dtype = dtype;
  g.scale = read_scales(graph, node, 1);
  g.zero.assign(g.scale.size(), 0);
  if (const Tensor* zero = graph.constant(node.input(2))) {
    const std::vector<int64_t> values = zero->to_ints();
    for (size_t i = 0; i < g.zero.size(); ++i) g.zero[i] = static_cast<int32_t>(values[i]);
  }
  const auto& shape = graph.value(node.input(0)).shape;
  g.axis = g.per_tensor() ? 0 : normalize_axis(node.int_or("axis", 1), shape->size());
  return g;
}

/// Calls body(first element, count, grid) for every run of one grid, in parallel.
template <class Body>
void for_runs(const Grids& grids, const Dims& dims, const Body& body) {
  if (grids.per_tensor()) {
    parallel_for(num_elements(dims), kBlock,
                 [&](int64_t begin, int64_t end) { body(begin, end - begin, size_t{0}); });
    return;
  }
  const auto axis = static_cast<size_t>(grids.axis);
  const int64_t inner = num_elements(dims, axis + 1, dims.size());
  const int64_t runs = num_elements(dims, 0, axis + 1);
  const int64_t per_block = std::max<int64_t>(kBlock / std::max<int64_t>(inner, 1), 1);
  parallel_for(runs, per_block, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      body(i * inner, inner, static_cast<size_t>(i % dims[axis]));
    }
  });
}

/// Whether an operator that reads images channels last uses the value.
bool read_as_image(const Graph& graph, ValueId value) {
  for (const Use& use : graph.value(value).uses) {
    const Node& node = graph.node(use.node);
    const bool ours =
        node.domain == ops::kDomain &&
        (node.op == ops::kQConv || node.op == ops::kQConvAdd || node.op == ops::kQConvLookup ||
         node.op == ops::kQAveragePool || node.op == ops::kQGlobalAveragePool);
    if (ours || node.is("MaxPool")) return true;
  }
  return false;
}

class QuantizeStep final : public Step {
 public:
  QuantizeStep(const Graph& graph, const Node& node, Isa isa)
      : kernels_(kernels_for(isa)),
        grids_(read_grids(graph, node, graph.value(node.output(0)).dtype)) {
    const Value& x = graph.value(node.input(0));
    const Node* producer = graph.producer(node.input(0));
    const bool image = x.shape && x.shape->size() >= 3 && x.shape->size() <= 5;
    // Integer operators hand on channels-last floats; the rest of the program is plain.
    from_image_ =
        image && grids_.per_tensor() && producer != nullptr && producer->domain == ops::kDomain;
    to_image_ = from_image_ || (image && (grids_.per_tensor() || grids_.axis == 1) &&
                                read_as_image(graph, node.output(0)));
  }
  Layout input_layout(size_t i) const override {
    return i == 0 && from_image_ ? Layout::channels_last : Layout::plain;
  }
  Layout output_layout(size_t) const override {
    return to_image_ ? Layout::channels_last : Layout::plain;
  }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    const TensorView& y = context.outputs[0];
    const bool transposes = x.layout != y.layout && x.dims.size() >= 3 && x.dims[1] > 1;
    if (transposes) return interleave(x, y);
    for_runs(grids_, x.dims, [&](int64_t first, int64_t count, size_t grid) {
      kernels_.quantize(y.as<uint8_t>() + first, x.as<float>() + first, count,
                        grids_.quantize(grid));
    });
  }

 private:
  void interleave(const TensorView& x, const TensorView& y) const {
    const int64_t channels = x.dims[1];
    const int64_t area = num_elements(x.dims, 2, x.dims.size());
    const int64_t tiles = (area + kTilePixels - 1) / kTilePixels;
    const int64_t per_block = std::max<int64_t>(kBlock / (kTilePixels * channels), 1);
    parallel_for(x.dims[0] * tiles, per_block, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / tiles * channels * area;
        const int64_t pixel = i % tiles * kTilePixels;
        interleave_tile(x.as<float>() + image + pixel, y.as<uint8_t>() + image + pixel * channels,
                        std::min(kTilePixels, area - pixel), channels, area);
      }
    });
  }

  void interleave_tile(const float* x, uint8_t* y, int64_t pixels, int64_t channels,
                       int64_t area) const {
    std::array<uint8_t, kTilePixels * kTileChannels> codes;
    for (int64_t c = 0; c < channels; c += kTileChannels) {
      const int64_t count = std::min(kTileChannels, channels - c);
      for (int64_t j = 0; j < count; ++j) {
        const size_t grid = grids_.per_tensor() ? 0 : static_cast<size_t>(c + j);
        kernels_.quantize(codes.data() + j * kTilePixels, x + (c + j) * area, pixels,
                          grids_.quantize(grid));
      }
      if (channels == count && count >= 2 && count <= 4) {
        kernels_.interleave(y, codes.data(), kTilePixels, count, pixels);
        return;
      }
      for (int64_t p = 0; p < pixels; ++p) {
        for (int64_t j = 0; j < count; ++j) {
          y[p * channels + c + j] = codes[static_cast<size_t>(j * kTilePixels + p)];
        }
      }
    }
  }

  const kernels::KernelSet& kernels_;
  Grids grids_;
  bool from_image_ = false;  // reads channels last
  bool to_image_ = false;    // writes channels last
};

class DequantizeStep final : public Step {
 public:
  DequantizeStep(const Graph& graph, const Node& node, Isa isa)
      : kernels_(kernels_for(isa)),
        grids_(read_grids(graph, node, graph.value(node.input(0)).dtype)) {}
  bool layout_agnostic() const override { return grids_.per_tensor(); }
  void run(RunContext& context) const override {
    const TensorView& x = context.inputs[0];
    for_runs(grids_, x.dims, [&](int64_t first, int64_t count, size_t grid) {
      kernels_.dequantize(context.outputs[0].as<float>() + first, x.as<uint8_t>() + first, count,
                          grids_.dequantize(grid));
    });
  }

 private:
  const kernels::KernelSet& kernels_;
  Grids grids_;
};

Refusal accept_grids(const Graph& graph, const Node& node) {
  const Tensor* scale = graph.constant(node.input(1));
  if (scale == nullptr || scale->dtype() != DType::float32) return "the scale is no float constant";
  if (node.int_or("block_size", 0) != 0) return "scales in blocks";
  if (node.input(2) != kNoId) {
    const Tensor* zero = graph.constant(node.input(2));
    if (zero == nullptr) return "the zero_point is not constant";
    if (zero->elements() != scale->elements()) return "as many zero_points as scales are wanted";
  }
  if (scale->elements() == 1) return {};
  const auto& shape = graph.value(node.input(0)).shape;
  if (!shape) return "the rank of the input is unknown";
  const Dim& extent = (*shape)[normalize_axis(node.int_or("axis", 1), shape->size())];
  if (!extent.known() || extent.value != scale->elements()) return "the axis has an unknown extent";
  return {};
}

template <Isa isa>
Refusal accept_quantize(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  if (Refusal r = kernels::refuse_isa(isa); !r.empty()) return r;
  if (dtype_of(graph, node, 0) != DType::float32) return "the input is not float32";
  if (!is_code_dtype(graph.value(node.output(0)).dtype)) return "the output has no 8-bit codes";
  return accept_grids(graph, node);
}

template <Isa isa>
Refusal accept_dequantize(const Graph& graph, const Node& node, const StepOptions& options) {
  if (options.deterministic_reference) return "only the reference was asked for";
  if (Refusal r = kernels::refuse_isa(isa); !r.empty()) return r;
  if (!is_code_dtype(dtype_of(graph, node, 0))) return "the input has no 8-bit codes";
  if (graph.value(node.output(0)).dtype != DType::float32) return "the output is not float32";
  return accept_grids(graph, node);
}

template <class S, Isa isa>
std::unique_ptr<Step> make(const Graph& graph, const Node& node, const StepOptions&) {
  return std::make_unique<S>(graph, node, isa);
}

#define NARROW_QUANTIZE(isa)                                                                  \
  {"", "QuantizeLinear", #isa, accept_quantize<Isa::isa>, make<QuantizeStep, Isa::isa>}, {    \
    "", "DequantizeLinear", #isa, accept_dequantize<Isa::isa>, make<DequantizeStep, Isa::isa> \
  }

constexpr OpImpl kRows[] = {
#if defined(__x86_64__)
    NARROW_QUANTIZE(avx512_vnni),
    NARROW_QUANTIZE(avx2),
#endif
    NARROW_QUANTIZE(scalar),
};
#undef NARROW_QUANTIZE

}  // namespace

std::span<const OpImpl> quantize_rows() {
  return kRows;
}

}  // namespace narrow::integer
