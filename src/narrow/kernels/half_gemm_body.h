// SPDX-License-Identifier: Apache-2.0
// Floats times 16-bit weights (or floats) as they are stored, [n][k] in rows: dot products of four
// weight rows with up to four activation rows, a vector of k at a time, all in registers. Every
// result is summed in the same order whatever m is. Included inside an anonymous namespace behind a
// float_vec.h.
#pragma once

#include "narrow/kernels/dot_tile_body.h"

template <class T, int R>
inline void dot_block(const HalfGemmArgs& g, int64_t row, int64_t column) {
  const T* b[4];
  for (int64_t j = 0; j < 4; ++j) {
    const int64_t c = column + j < g.n ? column + j : g.n - 1;
    b[j] = static_cast<const T*>(g.b) + c * g.ldb;
  }
  const float* a[R];
  for (int i = 0; i < R; ++i) a[i] = g.a + (row + i) * g.lda;
  Vec acc[R][4];
  dot_tile<R>(a, b, g.k, acc);
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
    float sums[4];
    store_sum4(sums, acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
    float* to = g.dst + (row + i) * g.ldc + column;
    for (int64_t j = 0; j < 4 && column + j < g.n; ++j) {
      to[j] = g.bias == nullptr ? sums[j] : sums[j] + g.bias[column + j];
    }
  }
}

template <class T>
inline void half_gemm_rows(const HalfGemmArgs& g) {
  for (int64_t column = 0; column < g.n; column += 4) {
    int64_t row = 0;
    for (; row + 4 <= g.m; row += 4) dot_block<T, 4>(g, row, column);
    for (; row < g.m; ++row) dot_block<T, 1>(g, row, column);
  }
}

inline void half_gemm_body(const HalfGemmArgs& g) {
  switch (g.stored) {
    case 0:
      return half_gemm_rows<Float16>(g);
    case 1:
      return half_gemm_rows<BrainFloat>(g);
    default:
      return half_gemm_rows<float>(g);
  }
}
