// SPDX-License-Identifier: Apache-2.0
// u8 x 4-bit GEMM with vpmaddubsw: two products of 255 and -8 are at most 4080, of which eight fit
// 16 bits.
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

// 8 sums of 16 bits, 2 registers of weights, 1 of activations, table, mask; sums of 32 bits pass
// through memory.
constexpr int kRows = 4;
// Groups that sums of 16 bits take.
constexpr int64_t kGroups16 = 8;

inline __attribute__((always_inline)) __m256i load_activations(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}
inline __attribute__((always_inline)) __m256i load_nibbles(const int8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
/// The low nibbles with their signs.
inline __attribute__((always_inline)) __m256i codes_of(__m256i nibbles) {
  const __m256i signs = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
  return _mm256_shuffle_epi8(signs, _mm256_and_si256(nibbles, _mm256_set1_epi8(15)));
}

/// The panel at `b` for MR rows from `row` on.
template <int MR>
void tile(const IgemmArgs& g, int64_t row, int64_t column, const int8_t* b) noexcept {
  const uint8_t* a[MR];
  __m256i sums[MR][2];
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i) {
    a[i] = g.rows[row + i] + g.taps[0];
    sums[i][0] = sums[i][1] = _mm256_setzero_si256();
  }
  for (int64_t first = 0; first < g.run; first += kGroups16) {
    const int64_t end = g.run < first + kGroups16 ? g.run : first + kGroups16;
    __m256i acc[MR][2];
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) acc[i][0] = acc[i][1] = _mm256_setzero_si256();
    const auto step = [&](__m256i w0, __m256i w1, int64_t k) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i) {
        const __m256i x = load_activations(a[i] + 4 * k);
        acc[i][0] = _mm256_add_epi16(acc[i][0], _mm256_maddubs_epi16(x, w0));
        acc[i][1] = _mm256_add_epi16(acc[i][1], _mm256_maddubs_epi16(x, w1));
      }
    };
    int64_t k = first;
    for (; k + 2 <= end; k += 2, b += 64) {
      const __m256i n0 = load_nibbles(b);
      const __m256i n1 = load_nibbles(b + 32);
      step(codes_of(n0), codes_of(n1), k);
      step(codes_of(_mm256_srli_epi16(n0, 4)), codes_of(_mm256_srli_epi16(n1, 4)), k + 1);
    }
    if (k < end) step(codes_of(load_nibbles(b)), codes_of(load_nibbles(b + 32)), k);
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) {
      sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(acc[i][0], ones));
      sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(acc[i][1], ones));
    }
  }
  alignas(32) int32_t stored[MR * kPanel];
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(stored + i * kPanel), sums[i][0]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(stored + i * kPanel + 8), sums[i][1]);
  }
  store_sums(g, row, MR, column, stored);
}

using TileFn = void (*)(const IgemmArgs&, int64_t, int64_t, const int8_t*) noexcept;
constexpr TileFn kTiles[kRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>};

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

}  // namespace narrow::kernels::avx2
#endif
