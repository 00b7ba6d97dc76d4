// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/integer/operands.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/quant/packing.h"
#include "narrow/quant/requantize.h"

namespace narrow::integer {
namespace {

[[noreturn]] void fail(const Node& node, const std::string& message) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("node '{}' ({}): {}", node.name, node.op, message));
}

bool is_weight_dtype(DType dtype) {
  return is_integer(dtype) && bits(dtype) <= 8;
}

/// The zero_points of a constant; they lie in the range of 8-bit codes.
std::vector<int64_t> zero_values(const Node& node, const Tensor& t) {
  std::vector<int64_t> values = t.to_ints();
  for (const int64_t v : values) {
    if (v < -128 || v > 255) fail(node, fmt::format("zero_point {} is no 8-bit code", v));
  }
  return values;
}

/// One zero_point for all channels or one each, as the codes' own type has them; empty when absent.
std::vector<int32_t> read_zero_points(const Graph& graph, const Node& node, size_t i,
                                      int64_t channels) {
  const Tensor* t = graph.constant(node.input(i));
  if (t == nullptr) return {};
  const std::vector<int64_t> values = zero_values(node, *t);
  if (values.size() != 1 && static_cast<int64_t>(values.size()) != channels) {
    fail(node, fmt::format("{} zero_points for {} channels", values.size(), channels));
  }
  std::vector<int32_t> out(static_cast<size_t>(channels));
  for (size_t c = 0; c < out.size(); ++c) {
    out[c] = static_cast<int32_t>(values[values.size() == 1 ? 0 : c]);
  }
  return out;
}

/// Dims split around the channel axis: element = (outer * channels + channel) * inner + i.
struct ChannelWalk {
  int64_t channels;
  int64_t inner;
  ChannelWalk(const Dims& dims, int64_t axis)
      : channels(dims[axis]), inner(num_elements(dims, axis + 1, dims.size())) {}
  int64_t channel(int64_t element) const { return element / inner % channels; }
};

int32_t scalar_zero_point(const Graph& graph, const Node& node, size_t i) {
  const Tensor* t = graph.constant(node.input(i));
  if (t == nullptr) return 0;
  if (t->elements() != 1) fail(node, fmt::format("input {} must be one zero_point", i));
  return static_cast<int32_t>(zero_values(node, *t)[0]);
}

float scalar_scale(const Graph& graph, const Node& node, size_t i) {
  const Tensor* t = graph.constant(node.input(i));
  if (t == nullptr || t->elements() != 1) fail(node, fmt::format("input {} must be one scale", i));
  return t->to_floats()[0];
}

}  // namespace

Refusal refuse_grid(const Graph& graph, const Node& node, size_t code) {
  const DType dtype = dtype_of(graph, node, code);
  if (!is_code_dtype(dtype)) return fmt::format("input {} is {}", code, to_string(dtype));
  const Tensor* scale = graph.constant(node.input(code + 1));
  if (scale == nullptr || scale->elements() != 1) {
    return fmt::format("input {} is no constant scale", code + 1);
  }
  if (node.input(code + 2) == kNoId) return {};
  const Tensor* zero = graph.constant(node.input(code + 2));
  if (zero == nullptr || zero->elements() != 1) {
    return fmt::format("input {} is no constant zero_point", code + 2);
  }
  return {};
}

CodeGrid read_grid(const Graph& graph, const Node& node, size_t code) {
  return {dtype_of(graph, node, code), scalar_scale(graph, node, code + 1),
          scalar_zero_point(graph, node, code + 2)};
}

CodeGrid read_output_grid(const Graph& graph, const Node& node, size_t scale) {
  return {graph.value(node.output(0)).dtype, scalar_scale(graph, node, scale),
          scalar_zero_point(graph, node, scale + 1)};
}

Refusal refuse_weights(const Graph& graph, const Node& node, size_t w, int64_t channel_axis) {
  const Tensor* codes = graph.constant(node.input(w));
  if (codes == nullptr) return fmt::format("input {} is not constant", w);
  if (!is_weight_dtype(codes->dtype())) {
    return fmt::format("weights are {}", to_string(codes->dtype()));
  }
  if (static_cast<int64_t>(codes->rank()) <= channel_axis) return "weights have too few dimensions";
  const int64_t channels = codes->dim(channel_axis);
  const Tensor* scale = graph.constant(node.input(w + 1));
  if (scale == nullptr) return fmt::format("input {} is no constant scale", w + 1);
  if (scale->elements() != 1 && scale->elements() != channels) {
    return "weights do not have one scale per output channel";
  }
  if (node.input(w + 2) == kNoId) return {};
  const Tensor* zero = graph.constant(node.input(w + 2));
  if (zero == nullptr) return fmt::format("input {} is no constant zero_point", w + 2);
  if (zero->elements() != 1 && zero->elements() != channels) {
    return "weights do not have one zero_point per output channel";
  }
  return {};
}

WeightCodes read_weights(const Graph& graph, const Node& node, size_t w, int64_t channel_axis) {
  const Tensor& codes = *graph.constant(node.input(w));
  WeightCodes out;
  out.dims = codes.dims();
  out.channels = codes.dim(channel_axis);
  out.scale = read_scales(graph, node, w + 1);
  out.zero = read_zero_points(graph, node, w + 2, out.channels);
  out.zero.resize(static_cast<size_t>(out.channels), 0);
  std::vector<int32_t> values(static_cast<size_t>(codes.elements()));
  read_codes(codes, 0, values);
  const ChannelWalk walk(codes.dims(), channel_axis);
  // Moving a channel's codes and its zero_point alike changes nothing. By the zero_point itself
  // where the result is int8, else by -128 for uint8, which always fits.
  std::vector<int32_t> lowest(out.zero.size(), std::numeric_limits<int32_t>::max());
  std::vector<int32_t> highest(out.zero.size(), std::numeric_limits<int32_t>::min());
  for (size_t i = 0; i < values.size(); ++i) {
    const auto c = static_cast<size_t>(walk.channel(static_cast<int64_t>(i)));
    lowest[c] = std::min(lowest[c], values[i]);
    highest[c] = std::max(highest[c], values[i]);
  }
  std::vector<int32_t> shift(out.zero.size());
  for (size_t c = 0; c < shift.size(); ++c) {
    const bool fits = values.empty() || (int64_t{lowest[c]} - out.zero[c] >= -128 &&
                                         int64_t{highest[c]} - out.zero[c] <= 127);
    shift[c] = fits ? out.zero[c] : codes.dtype() == DType::uint8 ? 128 : 0;
    out.zero[c] -= shift[c];
  }
  out.codes.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const auto c = static_cast<size_t>(walk.channel(static_cast<int64_t>(i)));
    out.codes[i] = static_cast<int8_t>(values[i] - shift[c]);
  }
  if (std::all_of(out.zero.begin(), out.zero.end(), [](int32_t z) { return z == 0; })) {
    out.zero.clear();
  }
  return out;
}

kernels::PackedMatrix pack_gemm_weights(WeightCodes w, bool transposed, Isa isa) {
  const int64_t n = w.channels;
  const int64_t k = n == 0 ? 0 : static_cast<int64_t>(w.codes.size()) / n;
  if (!transposed) {
    std::vector<int8_t> columns(w.codes.size());
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < n; ++j) columns[j * k + i] = w.codes[i * n + j];
    }
    w.codes = std::move(columns);
  }
  const kernels::MatrixShape shape{n, 1, k};
  if (isa != Isa::scalar) {
    if (auto packed = kernels::pack_nibbles(w.codes, shape, w.zero)) return std::move(*packed);
  }
  return kernels::pack_matrix(w.codes, shape, w.zero);
}

std::vector<int32_t> centered_weights(const Graph& graph, const Node& node, size_t w,
                                      int64_t channel_axis) {
  const Tensor& codes = *graph.constant(node.input(w));
  const std::vector<int32_t> zero = read_zero_points(graph, node, w + 2, codes.dim(channel_axis));
  std::vector<int32_t> out(static_cast<size_t>(codes.elements()));
  read_codes(codes, 0, out);
  const ChannelWalk walk(codes.dims(), channel_axis);
  for (size_t i = 0; i < out.size() && !zero.empty(); ++i) {
    out[i] -= zero[walk.channel(static_cast<int64_t>(i))];
  }
  return out;
}

std::vector<float> read_scales(const Graph& graph, const Node& node, size_t i) {
  return graph.constant(node.input(i))->to_floats();
}

Refusal refuse_bias(const Graph& graph, const Node& node, size_t i, int64_t channels) {
  if (node.input(i) == kNoId) return {};
  const Tensor* t = graph.constant(node.input(i));
  if (t == nullptr) return "the bias is not constant";
  if (t->elements() == channels || t->elements() == 1) return {};
  return fmt::format("a bias of {} for {} channels", t->describe(), channels);
}

std::vector<int32_t> read_bias(const Graph& graph, const Node& node, size_t i, int64_t channels) {
  const Tensor* t = graph.constant(node.input(i));
  if (t == nullptr) return {};
  const std::vector<int64_t> values = t->to_ints();
  std::vector<int32_t> out(static_cast<size_t>(channels));
  for (size_t c = 0; c < out.size(); ++c) {
    out[c] = static_cast<int32_t>(values[values.size() == 1 ? 0 : c]);
  }
  return out;
}

std::vector<float> read_float_bias(const Graph& graph, const Node& node, size_t i,
                                   int64_t channels) {
  const Tensor* t = graph.constant(node.input(i));
  if (t == nullptr) return {};
  std::vector<float> values = t->to_floats();
  if (values.size() == 1) values.assign(static_cast<size_t>(channels), values[0]);
  return values;
}

float OutputSpec::multiplier(float x_scale, float w_scale) const {
  if (quantized) return requant_multiplier(x_scale, w_scale, grid.scale);
  return static_cast<float>(static_cast<double>(x_scale) * static_cast<double>(w_scale));
}

kernels::ConvOutput OutputSpec::target(void* data) const {
  kernels::ConvOutput out;
  out.data = data;
  out.out = quantized ? kernels::Out::codes : kernels::Out::f32;
  out.lo = quantized ? static_cast<float>(qmin - grid.zero_point) : min;
  out.hi = quantized ? static_cast<float>(qmax - grid.zero_point) : max;
  out.zero_point = quantized ? grid.zero_point : 0;
  out.flip = quantized ? grid.flip() : 0;
  return out;
}

OutputSpec read_output(const Graph& graph, const Node& node, size_t scale,
                       const std::string& prefix) {
  OutputSpec out;
  out.quantized = node.input(scale) != kNoId;
  if (!out.quantized) {
    out.min = node.float_or("min", out.min);
    out.max = node.float_or("max", out.max);
    return out;
  }
  out.grid = read_output_grid(graph, node, scale);
  if (!is_code_dtype(out.grid.dtype)) {
    fail(node, fmt::format("codes of {} are not supported", to_string(out.grid.dtype)));
  }
  const int64_t lowest = integer_min(out.grid.dtype);
  const int64_t highest = integer_max(out.grid.dtype);
  out.qmin =
      static_cast<int32_t>(std::clamp(node.int_or(prefix + "qmin", lowest), lowest, highest));
  out.qmax =
      static_cast<int32_t>(std::clamp(node.int_or(prefix + "qmax", highest), lowest, highest));
  return out;
}

kernels::BinaryArgs binary_args(kernels::Binary op, const CodeGrid& a, const CodeGrid& b,
                                const OutputSpec& y) {
  const kernels::ConvOutput target = y.target(nullptr);
  kernels::BinaryArgs args = {};
  args.op = op;
  args.flip_a = a.flip();
  args.flip_b = b.flip();
  args.zero_a = a.byte_zero();
  args.zero_b = b.byte_zero();
  const double sa = static_cast<double>(a.scale);
  const double sb = static_cast<double>(b.scale);
  const double sy = static_cast<double>(y.grid.scale);
  switch (op) {  // float32 of quotients in double
    case kernels::Binary::mul:
      args.scale_a = static_cast<float>(sa * sb / sy);
      break;
    case kernels::Binary::div:
      args.scale_a = static_cast<float>(sa / (sb * sy));
      break;
    default:
      args.scale_a = static_cast<float>(sa / sy);
      args.scale_b = static_cast<float>(sb / sy);
  }
  args.lo = target.lo;
  args.hi = target.hi;
  args.zero_point = target.zero_point;
  return args;
}

std::vector<float> multipliers(const OutputSpec& out, float x_scale, std::span<const float> w_scale,
                               int64_t channels) {
  std::vector<float> m(static_cast<size_t>(channels));
  for (size_t c = 0; c < m.size(); ++c) {
    m[c] = out.multiplier(x_scale, w_scale[w_scale.size() == 1 ? 0 : c]);
  }
  return m;
}

CodeRange code_range(const CodeGrid& grid) {
  return {static_cast<int32_t>(integer_min(grid.dtype)),
          static_cast<int32_t>(integer_max(grid.dtype)), grid.zero_point};
}

Refusal refuse_overflow(const Graph& graph, const Node& node, const CodeRange& x, size_t w,
                        int64_t channel_axis, std::optional<size_t> bias) {
  const Tensor& codes = *graph.constant(node.input(w));
  const int64_t channels = codes.dim(channel_axis);
  const std::vector<int32_t> b =
      bias ? read_bias(graph, node, *bias, channels) : std::vector<int32_t>{};
  int64_t largest = 0;
  for (const int32_t v : b) largest = std::max(largest, std::abs(int64_t{v}));
  const int64_t k = codes.elements() / std::max<int64_t>(channels, 1);
  constexpr int64_t kLargestProduct = 255 * 255;  // differences of two 8-bit codes
  if (k * kLargestProduct + largest <= std::numeric_limits<int32_t>::max()) return {};
  const std::vector<int32_t> zero = read_zero_points(graph, node, w + 2, channels);
  if (prove_accumulators(codes, zero, x, b, channel_axis).fits_int32()) return {};
  return "sums may pass int32";
}

const kernels::KernelSet& kernels_for(Isa isa) {
  return *kernels::find_kernels(isa);
}

std::vector<int32_t> centered(const TensorView& codes, int32_t zero_point) {
  std::vector<int32_t> out(static_cast<size_t>(codes.elements()));
  for (size_t i = 0; i < out.size(); ++i) {
    const int32_t code =
        codes.dtype == DType::int8 ? codes.as<int8_t>()[i] : int32_t{codes.as<uint8_t>()[i]};
    out[i] = code - zero_point;
  }
  return out;
}

}  // namespace narrow::integer
