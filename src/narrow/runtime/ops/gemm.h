// SPDX-License-Identifier: Apache-2.0
// Portable float32 matrix product: both operands in panels, a register tile per instruction set.
// Serves builds without oneDNN, and shapes that oneDNN rows refuse.
//
//   const GemmKernel& kernel = gemm_kernel();
//   pack_rows(kernel, a, ...); pack_columns(kernel, b, ...);
//   multiply_packed(kernel, a_panels, b_panels, m, n, k, c, n);
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrow::ops {

/// One register tile: C[rows x cols] (+)= A panel [k][tile_m] * B panel [k][tile_n].
struct GemmKernel {
  const char* name;
  int64_t tile_m;
  int64_t tile_n;
  void (*tile)(const float* a, const float* b, int64_t k, float* c, int64_t ldc, int64_t rows,
               int64_t cols, int accumulate);
};

/// The best one for the active instruction set.
const GemmKernel& gemm_kernel();

/// A strided view of a matrix: element (i, j) at data[i * row_stride + j * col_stride].
struct MatrixView {
  const float* data;
  int64_t row_stride;
  int64_t col_stride;
};

size_t packed_rows_elements(const GemmKernel& kernel, int64_t m, int64_t k);
size_t packed_columns_elements(const GemmKernel& kernel, int64_t n, int64_t k);

/// a [m x k] to panels of tile_m rows, the last one padded with zeros; multiplied by alpha.
void pack_rows(const GemmKernel& kernel, const MatrixView& a, int64_t m, int64_t k, float alpha,
               float* panels);
/// b [k x n] to panels of tile_n columns, padded with zeros.
void pack_columns(const GemmKernel& kernel, const MatrixView& b, int64_t n, int64_t k,
                  float* panels);

/// c [m x n], rows ldc apart: c = a * b, or c += a * b.
enum class GemmInto { overwrite, add };
void multiply_packed(const GemmKernel& kernel, const float* a_panels, const float* b_panels,
                     int64_t m, int64_t n, int64_t k, float* c, int64_t ldc, GemmInto into);

}  // namespace narrow::ops
