// SPDX-License-Identifier: Apache-2.0
// u8 x s8 GEMM with the 256-bit vpdpbusd: tiles of 6 rows and one panel of 16 columns.
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"
#include "narrow/kernels/x86/avx_vnni/kernels.h"

namespace narrow::kernels::avx_vnni {
namespace {

// 12 accumulators, 2 registers of weights, 1 of activations.
constexpr int kRows = 6;

inline __attribute__((always_inline)) __m256i load_activations(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}

/// The panel at `b` for MR rows from `row` on.
template <int MR>
void tile(const IgemmArgs& g, int64_t row, int64_t column, const int8_t* b) noexcept {
  __m256i acc[MR][2];
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) acc[i][0] = acc[i][1] = _mm256_setzero_si256();
  for (int64_t t = 0; t < g.num_taps; ++t) {
    const uint8_t* a[MR];
#pragma GCC unroll 6
    for (int i = 0; i < MR; ++i) a[i] = g.rows[row + i] + g.taps[t];
    for (int64_t k = 0; k < g.run; ++k, b += kPanel * kGroup) {
      const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
      const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32));
#pragma GCC unroll 6
      for (int i = 0; i < MR; ++i) {
        const __m256i x = load_activations(a[i] + 4 * k);
        acc[i][0] = _mm256_dpbusd_avx_epi32(acc[i][0], x, w0);
        acc[i][1] = _mm256_dpbusd_avx_epi32(acc[i][1], x, w1);
      }
    }
  }
  alignas(32) int32_t sums[MR * kPanel];
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums + i * kPanel), acc[i][0]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums + i * kPanel + 8), acc[i][1]);
  }
  avx2::store_sums(g, row, MR, column, sums);
}

/// One row: several k side by side, since five sums per port are under way.
void tile_one_row(const IgemmArgs& g, int64_t row, int64_t column, const int8_t* b) noexcept {
  constexpr int kSteps = 6;
  __m256i acc[kSteps][2];
#pragma GCC unroll 6
  for (int s = 0; s < kSteps; ++s) acc[s][0] = acc[s][1] = _mm256_setzero_si256();
  const auto step = [&](int s, const uint8_t* a, const int8_t* w) __attribute__((always_inline)) {
    const __m256i x = load_activations(a);
    const auto* p = reinterpret_cast<const __m256i*>(w);
    acc[s][0] = _mm256_dpbusd_avx_epi32(acc[s][0], x, _mm256_loadu_si256(p));
    acc[s][1] = _mm256_dpbusd_avx_epi32(acc[s][1], x, _mm256_loadu_si256(p + 1));
  };
  for (int64_t t = 0; t < g.num_taps; ++t) {
    const uint8_t* a = g.rows[row] + g.taps[t];
    int64_t k = 0;
    for (; k + kSteps <= g.run; k += kSteps) {
#pragma GCC unroll 6
      for (int s = 0; s < kSteps; ++s) step(s, a + 4 * (k + s), b + 64 * s);
      b += 64 * kSteps;
    }
    for (; k < g.run; ++k, b += 64) step(0, a + 4 * k, b);
  }
  alignas(32) int32_t sums[kPanel];
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    __m256i sum = acc[0][h];
#pragma GCC unroll 6
    for (int s = 1; s < kSteps; ++s) sum = _mm256_add_epi32(sum, acc[s][h]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums + 8 * h), sum);
  }
  avx2::store_sums(g, row, 1, column, sums);
}

using TileFn = void (*)(const IgemmArgs&, int64_t, int64_t, const int8_t*) noexcept;
constexpr TileFn kTiles[kRows + 1] = {nullptr, tile_one_row, tile<2>, tile<3>,
                                      tile<4>, tile<5>,      tile<6>};

}  // namespace

void igemm(const IgemmArgs& args) noexcept {
  const int64_t panel_bytes = args.num_taps * args.run * kPanel * kGroup;
  const int64_t tiles = (args.m + kRows - 1) / kRows;
  for (int64_t column = 0; column < args.n; column += kPanel) {
    const int8_t* panel = args.weights + column / kPanel * panel_bytes;
    int64_t row = 0;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t rows = (args.m - row) / (tiles - t);
      kTiles[rows](args, row, column, panel);
      row += rows;
    }
  }
}

}  // namespace narrow::kernels::avx_vnni
#endif
