// SPDX-License-Identifier: Apache-2.0
// u8 x 4-bit GEMM with the 256-bit vpdpbusd, on codes times 16 as in avx512_vnni/igemm4.cpp.
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"
#include "narrow/kernels/x86/avx_vnni/kernels.h"

namespace narrow::kernels::avx_vnni {
namespace {

// 12 accumulators, 2 registers of weights, 1 of activations, the mask.
constexpr int kRows = 6;

inline __attribute__((always_inline)) __m256i load_activations(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}
inline __attribute__((always_inline)) __m256i load_nibbles(const int8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline __attribute__((always_inline)) __m256i low(__m256i nibbles) {
  return _mm256_and_si256(_mm256_slli_epi32(nibbles, 4), _mm256_set1_epi8(static_cast<char>(0xf0)));
}
inline __attribute__((always_inline)) __m256i high(__m256i nibbles) {
  return _mm256_and_si256(nibbles, _mm256_set1_epi8(static_cast<char>(0xf0)));
}

/// One group of MR rows.
template <int MR>
inline __attribute__((always_inline)) void step(__m256i (&acc)[MR][2],
                                                const uint8_t* const (&a)[MR], int64_t k,
                                                __m256i w0, __m256i w1) {
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) {
    const __m256i x = load_activations(a[i] + 4 * k);
    acc[i][0] = _mm256_dpbusd_avx_epi32(acc[i][0], x, w0);
    acc[i][1] = _mm256_dpbusd_avx_epi32(acc[i][1], x, w1);
    // GCC would keep some sums in memory otherwise.
    __asm__ volatile("" : "+x"(acc[i][0]), "+x"(acc[i][1]));
  }
}

/// The panel at `b` for MR rows from `row` on.
template <int MR>
void tile(const IgemmArgs& g, int64_t row, int64_t column, const int8_t* b) noexcept {
  __m256i acc[MR][2];
  const uint8_t* a[MR];
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) {
    acc[i][0] = acc[i][1] = _mm256_setzero_si256();
    a[i] = g.rows[row + i] + g.taps[0];
  }
  int64_t k = 0;
  for (; k + 2 <= g.run; k += 2, b += 64) {
    step<MR>(acc, a, k, low(load_nibbles(b)), low(load_nibbles(b + 32)));
    step<MR>(acc, a, k + 1, high(load_nibbles(b)), high(load_nibbles(b + 32)));
  }
  if (k < g.run) step<MR>(acc, a, k, low(load_nibbles(b)), low(load_nibbles(b + 32)));
  alignas(32) int32_t sums[MR * kPanel];
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums + i * kPanel + 8 * h),
                         _mm256_srai_epi32(acc[i][h], 4));
    }
  }
  avx2::store_sums(g, row, MR, column, sums);
}

/// One row: several k side by side, since five sums per port are under way.
void tile_one_row(const IgemmArgs& g, int64_t row, int64_t column, const int8_t* b) noexcept {
  constexpr int kPairs = 3;
  __m256i acc[2 * kPairs][1][2];
#pragma GCC unroll 6
  for (int s = 0; s < 2 * kPairs; ++s) acc[s][0][0] = acc[s][0][1] = _mm256_setzero_si256();
  const uint8_t* const a[1] = {g.rows[row] + g.taps[0]};
  int64_t k = 0;
  for (; k + 2 * kPairs <= g.run; k += 2 * kPairs, b += 64 * kPairs) {
#pragma GCC unroll 3
    for (int s = 0; s < kPairs; ++s) {
      const __m256i n0 = load_nibbles(b + 64 * s);
      const __m256i n1 = load_nibbles(b + 64 * s + 32);
      step<1>(acc[2 * s], a, k + 2 * s, low(n0), low(n1));
      step<1>(acc[2 * s + 1], a, k + 2 * s + 1, high(n0), high(n1));
    }
  }
  for (; k < g.run; k += 2, b += 64) {
    step<1>(acc[0], a, k, low(load_nibbles(b)), low(load_nibbles(b + 32)));
    if (k + 1 < g.run) step<1>(acc[1], a, k + 1, high(load_nibbles(b)), high(load_nibbles(b + 32)));
  }
  alignas(32) int32_t sums[kPanel];
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    __m256i sum = acc[0][0][h];
#pragma GCC unroll 6
    for (int s = 1; s < 2 * kPairs; ++s) sum = _mm256_add_epi32(sum, acc[s][0][h]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums + 8 * h), _mm256_srai_epi32(sum, 4));
  }
  avx2::store_sums(g, row, 1, column, sums);
}

using TileFn = void (*)(const IgemmArgs&, int64_t, int64_t, const int8_t*) noexcept;
constexpr TileFn kTiles[kRows + 1] = {nullptr, tile_one_row, tile<2>, tile<3>,
                                      tile<4>, tile<5>,      tile<6>};

}  // namespace

void igemm4(const IgemmArgs& args) noexcept {
  const int64_t panel_bytes = (args.run + 1) / 2 * 64;
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
