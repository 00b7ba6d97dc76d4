// SPDX-License-Identifier: Apache-2.0
// u8 x s8 GEMM with vpdpbusd: tiles of up to 64 columns (four panels) and as many rows as registers
// allow. Wrapping sums, so corrections are exact whenever the final value fits.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

#include "narrow/kernels/x86/avx512_vnni/epilogue_body.h"

// Accumulators: rows x panels <= 24 of the 32 registers; vpdpbusd has latency 5 at two per cycle,
// so 10 chains are enough. More than 10 rows do not fit the 16 general registers as row pointers.
constexpr int kMaxRows[5] = {0, 10, 10, 8, 6};

inline __attribute__((always_inline)) __m512i load_a(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}

template <int MR, int NP>
void tile(const Tile& at) noexcept {
  const IgemmArgs& g = *at.g;
  const int64_t panel_bytes = g.num_taps * g.run * 64;
  const int8_t* b = g.weights + at.column / kPanel * panel_bytes;
  __m512i acc[MR][NP];
#pragma GCC unroll 4
  for (int p = 0; p < NP; ++p) {
    const __m512i corr = _mm512_loadu_si512(g.epilogue.corr + at.column + p * kPanel);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) acc[i][p] = corr;
  }
  const uint8_t* const* rows = g.rows + at.row;
  for (int64_t t = 0; t < g.num_taps; ++t) {
    const int64_t tap = g.taps[t];
    const uint8_t* a[MR];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) a[i] = rows[i] + tap;
    for (int64_t k = 0; k < g.run; ++k, b += 64) {
      __m512i w[NP];
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p) w[p] = _mm512_loadu_si512(b + p * panel_bytes);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const __m512i x = load_a(a[i] + 4 * k);
#pragma GCC unroll 4
        for (int p = 0; p < NP; ++p) acc[i][p] = _mm512_dpbusd_epi32(acc[i][p], x, w[p]);
      }
    }
  }
  finish<MR, NP>(at, acc);
}

/// One row: weights are streamed once, so several k run side by side to hide the latency.
template <int NP>
void tile_one_row(const Tile& at) noexcept {
  constexpr int kSteps = NP == 1 ? 8 : 4;
  const IgemmArgs& g = *at.g;
  const int64_t panel_bytes = g.num_taps * g.run * 64;
  const int8_t* b = g.weights + at.column / kPanel * panel_bytes;
  __m512i acc[kSteps][NP];
#pragma GCC unroll 4
  for (int p = 0; p < NP; ++p) {
    acc[0][p] = _mm512_loadu_si512(g.epilogue.corr + at.column + p * kPanel);
#pragma GCC unroll 8
    for (int s = 1; s < kSteps; ++s) acc[s][p] = _mm512_setzero_si512();
  }
  for (int64_t t = 0; t < g.num_taps; ++t) {
    const uint8_t* a = g.rows[at.row] + g.taps[t];
    int64_t k = 0;
    for (; k + kSteps <= g.run; k += kSteps, b += 64 * kSteps) {
#pragma GCC unroll 8
      for (int s = 0; s < kSteps; ++s) {
        const __m512i x = load_a(a + 4 * (k + s));
#pragma GCC unroll 4
        for (int p = 0; p < NP; ++p) {
          const __m512i w = _mm512_loadu_si512(b + p * panel_bytes + 64 * s);
          acc[s][p] = _mm512_dpbusd_epi32(acc[s][p], x, w);
        }
      }
    }
    for (; k < g.run; ++k, b += 64) {
      const __m512i x = load_a(a + 4 * k);
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p) {
        const __m512i w = _mm512_loadu_si512(b + p * panel_bytes);
        acc[0][p] = _mm512_dpbusd_epi32(acc[0][p], x, w);
      }
    }
  }
  __m512i sum[1][NP];
#pragma GCC unroll 4
  for (int p = 0; p < NP; ++p) {
    sum[0][p] = acc[0][p];
#pragma GCC unroll 8
    for (int s = 1; s < kSteps; ++s) sum[0][p] = _mm512_add_epi32(sum[0][p], acc[s][p]);
  }
  finish<1, NP>(at, sum);
}

using TileFn = void (*)(const Tile&) noexcept;
// [panels][rows]
constexpr TileFn kTiles[5][11] = {
    {},
    {nullptr, tile_one_row<1>, tile<2, 1>, tile<3, 1>, tile<4, 1>, tile<5, 1>, tile<6, 1>,
     tile<7, 1>, tile<8, 1>, tile<9, 1>, tile<10, 1>},
    {nullptr, tile_one_row<2>, tile<2, 2>, tile<3, 2>, tile<4, 2>, tile<5, 2>, tile<6, 2>,
     tile<7, 2>, tile<8, 2>, tile<9, 2>, tile<10, 2>},
    {nullptr, tile_one_row<3>, tile<2, 3>, tile<3, 3>, tile<4, 3>, tile<5, 3>, tile<6, 3>,
     tile<7, 3>, tile<8, 3>},
    {nullptr, tile_one_row<4>, tile<2, 4>, tile<3, 4>, tile<4, 4>, tile<5, 4>, tile<6, 4>}};

}  // namespace

void igemm(const IgemmArgs& args) noexcept {
  const int64_t panels = (args.n + kPanel - 1) / kPanel;
  for (int64_t p = 0; p < panels;) {
    const int64_t np = panels - p < 4 ? panels - p : 4;
    // Even tiles: 49 rows are 9 tiles of 5 or 6 rather than 8 of 6 and a slow one of 1.
    const int64_t tiles = (args.m + kMaxRows[np] - 1) / kMaxRows[np];
    int64_t row = 0;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t rows = (args.m - row) / (tiles - t);
      kTiles[np][rows]({&args, row, p * kPanel});
      row += rows;
    }
    p += np;
  }
}

void row_sums(const uint8_t* const* rows, int64_t m, const int64_t* taps, int64_t num_taps,
              int64_t run_bytes, int32_t* sums) noexcept {
  const __m512i zero = _mm512_setzero_si512();
  for (int64_t r = 0; r < m; ++r) {
    __m512i acc = zero;
    for (int64_t t = 0; t < num_taps; ++t) {
      const uint8_t* a = rows[r] + taps[t];
      for (int64_t k = 0; k < run_bytes; k += 64) {
        const int64_t left = run_bytes - k;
        const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
        acc = _mm512_add_epi64(acc, _mm512_sad_epu8(_mm512_maskz_loadu_epi8(mask, a + k), zero));
      }
    }
    sums[r] = static_cast<int32_t>(_mm512_reduce_add_epi64(acc));
  }
}

}  // namespace narrow::kernels::avx512_vnni
#endif
