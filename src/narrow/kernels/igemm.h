// SPDX-License-Identifier: Apache-2.0
// Integer matrix products: weights packed once, activations read through one pointer per row.
//
//   PackedMatrix w = pack_matrix(codes, {.n = n, .taps = 1, .run_bytes = k}, {});
//   Columns columns = make_columns(w, z_x, bias, multiplier);
//   run_igemm(best_kernels(), {...});
//
// Inside, activations are uint8 and weights int8: int8 activations are stored xor 0x80 (zero_point
// + 128), uint8 weights are shifted by -128, both with their zero_points, which changes no sum.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/kernels/kernel_set.h"

namespace narrow::kernels {

/// Shape of packed weights: n columns, each of `taps` runs of `run_bytes` consecutive values.
struct MatrixShape {
  int64_t n = 0;
  int64_t taps = 1;
  int64_t run_bytes = 0;
  int64_t k() const { return taps * run_bytes; }
  int64_t groups() const { return (run_bytes + kGroup - 1) / kGroup; }
  int64_t panels() const { return (n + kPanel - 1) / kPanel; }
  /// Bytes that kernels read per tap: up to 3 past the run, times weights of 0.
  int64_t read_bytes() const { return groups() * kGroup; }
};

/// K with padding that kernels take at most (the AVX2 kernel widens a row on its stack).
inline constexpr int64_t kMaxK = 65536;

/// Packed weights as the product needs them, wherever they live.
struct PackedView {
  MatrixShape shape;
  int32_t bits = 8;  // or 4
  const int8_t* weights = nullptr;
  const int32_t* weight_zero = nullptr;  // nullptr: symmetric
};

struct PackedMatrix {
  MatrixShape shape;
  int32_t bits = 8;
  Tensor weights;                    // int8, layout of kernel_types.h
  std::vector<int32_t> column_sums;  // of the codes, padded to whole panels
  std::vector<int32_t> weight_zero;  // per column, padded; empty: symmetric
  size_t bytes() const { return weights.bytes(); }
  PackedView view() const {
    return {shape, bits, reinterpret_cast<const int8_t*>(weights.raw()),
            weight_zero.empty() ? nullptr : weight_zero.data()};
  }
};

/// codes [n][taps][run_bytes]; zero: one zero_point per column, or none.
PackedMatrix pack_matrix(std::span<const int8_t> codes, const MatrixShape& shape,
                         std::span<const int32_t> zero);
/// The same in 4 bits for one tap, each column moved with its zero_point to [-8, 7]; nothing where
/// the codes of a column lie further apart.
std::optional<PackedMatrix> pack_nibbles(std::span<const int8_t> codes, const MatrixShape& shape,
                                         std::span<const int32_t> zero);
/// Bytes of packed weights of 8 bits alone.
size_t packed_matrix_bytes(const MatrixShape& shape);

/// Where column c of depthwise weights stands in a block of 64 (kernel_types.h).
int64_t depthwise_place(int64_t channel);
/// codes [taps][channels], symmetric.
PackedMatrix pack_depthwise(std::span<const int8_t> codes, int64_t taps, int64_t channels);

/// Per-column constants of an epilogue, padded to whole panels and owned.
struct Columns {
  std::vector<int32_t> corr;
  std::vector<float> multiplier;
  std::vector<float> bias;  // float outputs only; may be empty
};

/// corr[c] = bias[c] - z_x * column_sum[c] + k * z_x * weight_zero[c], wrapping; z_x is that of the
/// uint8 activations. multiplier: one, or one per column; bias: none or one per column.
Columns make_columns(const PackedMatrix& w, int32_t z_x, std::span<const int32_t> bias,
                     std::span<const float> multiplier);
/// The same for depthwise weights, in their order; bias and multiplier begin again where the packed
/// channels are more than they are.
Columns make_depthwise_columns(const PackedMatrix& w, int32_t z_x, std::span<const int32_t> bias,
                               std::span<const float> multiplier);
/// Only the correction, for run-time z_x; `corr` has whole panels.
void fill_corrections(const PackedMatrix& w, int32_t z_x, std::span<const int32_t> bias,
                      int32_t* corr);

/// Gives the pointers of rows [first, first + count).
using RowPointers = std::function<void(int64_t first, int64_t count, const uint8_t** rows)>;

struct IgemmProblem {
  int64_t m = 0;
  PackedView w;
  RowPointers rows;
  std::span<const int64_t> tap_offsets;
  Epilogue epilogue = {};  // weight_zero is taken from w
  void* dst = nullptr;
  int64_t ldc = 0;
  // Codes that lie as dst does and are added to each block of codes while a cache has it, as `sum`
  // says: operand a are the product's.
  const uint8_t* addend = nullptr;
  const BinaryArgs* sum = nullptr;
  // Or 256 codes by which those of a block are replaced.
  const uint8_t* table = nullptr;
};

/// Runs on the thread pool in tiles whose borders depend on the shape alone; small products stay on
/// the calling thread.
void run_igemm(const KernelSet& kernels, const IgemmProblem& problem);

/// Up to this many multiply-adds, handing work to another thread costs more than it saves. Two
/// threads of an AMD EPYC 9005 (AVX-512 VNNI; a million take 2 us): ResNet-20 87 us with four
/// million here, 67 with one, no better with half a million.
inline constexpr int64_t kOneThreadMacs = 1'000'000;
/// Work of one parallel block: a microsecond or more, so that handing it out costs little.
inline constexpr int64_t kBlockMacs = 500'000;
/// Whether blocks of a product this large are rows, rather than columns of some rows.
bool cut_by_rows(int64_t m, int64_t n);

}  // namespace narrow::kernels
