// SPDX-License-Identifier: Apache-2.0
// Reading the operands of the integer operators: grids of activations, weight codes, outputs. Used
// when a step is made; everything is checked here, so that running needs no checks.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "narrow/kernels/conv.h"
#include "narrow/quant/overflow.h"
#include "narrow/runtime/op_impl.h"

namespace narrow::integer {

inline bool is_code_dtype(DType dtype) {
  return dtype == DType::int8 || dtype == DType::uint8;
}

inline DType dtype_of(const Graph& graph, const Node& node, size_t i) {
  return node.input(i) == kNoId ? DType::undefined : graph.value(node.input(i)).dtype;
}

/// A per-tensor grid of 8-bit codes.
struct CodeGrid {
  DType dtype = DType::uint8;
  float scale = 1;
  int32_t zero_point = 0;

  /// What turns the codes into the bytes that kernels see, and the zero_point after it.
  uint8_t flip() const { return dtype == DType::int8 ? 0x80 : 0; }
  int32_t byte_zero() const { return zero_point + (dtype == DType::int8 ? 128 : 0); }
};

/// Why input `code` with scale and zero_point behind it has no such grid; empty if it has.
Refusal refuse_grid(const Graph& graph, const Node& node, size_t code);
/// The grid whose codes are input `code`, scale `code + 1`, zero_point `code + 2`.
CodeGrid read_grid(const Graph& graph, const Node& node, size_t code);
/// The grid of an output: scale and zero_point are inputs `scale` and `scale + 1`.
CodeGrid read_output_grid(const Graph& graph, const Node& node, size_t scale);

/// Weights as int8 codes of the same order and zero_points (none when all are 0). Codes are moved
/// towards int8 where that makes them symmetric; uint8 codes by -128 at least.
struct WeightCodes {
  Dims dims;
  std::vector<int8_t> codes;
  std::vector<int32_t> zero;  // empty, or one per channel
  std::vector<float> scale;   // one, or one per channel
  int64_t channels = 0;
};
/// Why input `w` is no constant of at most 8 bits with constant scale and zero_point behind it.
Refusal refuse_weights(const Graph& graph, const Node& node, size_t w, int64_t channel_axis);
WeightCodes read_weights(const Graph& graph, const Node& node, size_t w, int64_t channel_axis);

/// Weights of a product, [K, N] or transposed [N, K], packed; in 4 bits where all codes fit and
/// kernels for `isa` are at least as fast with them.
kernels::PackedMatrix pack_gemm_weights(WeightCodes w, bool transposed, Isa isa);
/// The same as plain differences code - zero_point, for the reference.
std::vector<int32_t> centered_weights(const Graph& graph, const Node& node, size_t w,
                                      int64_t channel_axis);
/// Only the scales: one, or one per channel.
std::vector<float> read_scales(const Graph& graph, const Node& node, size_t i);

/// The constant int32 bias with one number per channel, or nothing.
std::vector<int32_t> read_bias(const Graph& graph, const Node& node, size_t i, int64_t channels);
/// The same in float.
std::vector<float> read_float_bias(const Graph& graph, const Node& node, size_t i,
                                   int64_t channels);

/// What becomes of the sums: codes on a grid, or floats between bounds.
struct OutputSpec {
  bool quantized = false;
  CodeGrid grid;
  int32_t qmin = 0;
  int32_t qmax = 255;
  float min = -std::numeric_limits<float>::infinity();
  float max = std::numeric_limits<float>::infinity();

  /// float32 multiplier of one channel.
  float multiplier(float x_scale, float w_scale) const;
  /// Where it goes, in the words of the kernels.
  kernels::ConvOutput target(void* data) const;
};
/// y_scale is input `scale` (absent: float output), y_zero_point the next.
/// `prefix`: of the attributes qmin and qmax.
OutputSpec read_output(const Graph& graph, const Node& node, size_t scale,
                       const std::string& prefix = "");
/// Add, Sub, Mul or Div of codes of two grids, as QBinary says.
kernels::BinaryArgs binary_args(kernels::Binary op, const CodeGrid& a, const CodeGrid& b,
                                const OutputSpec& y);
/// One multiplier per channel; w_scale: one, or one per channel.
std::vector<float> multipliers(const OutputSpec& out, float x_scale, std::span<const float> w_scale,
                               int64_t channels);

/// Why sums of codes in this range may pass int32 (then only the reference, with 64 bits, is
/// exact). `bias`: the input that holds an int32 bias.
Refusal refuse_overflow(const Graph& graph, const Node& node, const CodeRange& x, size_t w,
                        int64_t channel_axis, std::optional<size_t> bias);
/// Every code of the grid's type.
CodeRange code_range(const CodeGrid& grid);
/// Why input i is neither absent nor a constant with one number per channel (or one for all).
Refusal refuse_bias(const Graph& graph, const Node& node, size_t i, int64_t channels);

/// The kernels for exactly this instruction set; only called after refuse_isa() accepted.
const kernels::KernelSet& kernels_for(Isa isa);

/// The int32 values of at most 8-bit codes in memory, zero_point subtracted.
std::vector<int32_t> centered(const TensorView& codes, int32_t zero_point);

/// Rows of the families, one function per file.
std::span<const OpImpl> conv_rows();
std::span<const OpImpl> gemm_rows();
std::span<const OpImpl> quantize_rows();
std::span<const OpImpl> pool_rows();
std::span<const OpImpl> binary_rows();
std::span<const OpImpl> lookup_rows();
std::span<const OpImpl> dynamic_rows();
std::span<const OpImpl> weight_only_rows();
std::span<const OpImpl> block_rows();

}  // namespace narrow::integer
