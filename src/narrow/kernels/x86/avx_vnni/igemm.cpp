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

inline __attribute__((always_inline)) __m256i load32(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

/// Whether a whole panel of codes is made, which is done in registers; its sums then begin with
/// their corrections.
inline __attribute__((always_inline)) bool makes_codes(const IgemmArgs& g, int64_t column) {
  const Epilogue& e = g.epilogue;
  return e.out == Out::codes && e.weight_zero == nullptr && column + kPanel <= g.n;
}

/// Codes of two rows at a time, made as bytes in [0, 255], int8 ones 128 higher until the last
/// step: saturating packs and a maximum do what the lower bound asks.
template <int MR>
inline __attribute__((always_inline)) void store_codes(const IgemmArgs& g, int64_t row,
                                                       int64_t column, __m256i (&acc)[MR][2]) {
  const Epilogue& e = g.epilogue;
  const int zero_byte = e.zero_point + e.flip;
  const __m256 hi = _mm256_set1_ps(e.hi);
  const __m256i zero = _mm256_set1_epi16(static_cast<short>(zero_byte));
  const __m256i lowest = _mm256_set1_epi8(static_cast<char>(static_cast<int>(e.lo) + zero_byte));
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(e.flip));
  const __m256 multiplier[2] = {_mm256_loadu_ps(e.multiplier + column),
                                _mm256_loadu_ps(e.multiplier + column + 8)};
  // Columns 0..3 and 8..11 of both rows in one lane, the others in the other.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const auto words = [&](const __m256i(&sums)[2]) __attribute__((always_inline)) {
    __m256i t[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256 real = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[h]), multiplier[h]);
      t[h] = _mm256_cvtps_epi32(_mm256_min_ps(real, hi));
    }
    return _mm256_adds_epi16(_mm256_packs_epi32(t[0], t[1]), zero);
  };
  uint8_t* dst = static_cast<uint8_t*>(g.dst) + row * g.ldc + column;
#pragma GCC unroll 6
  for (int i = 0; i < MR; i += 2, dst += 2 * g.ldc) {
    const __m256i first = words(acc[i]);
    const __m256i second = i + 1 < MR ? words(acc[i + 1 < MR ? i + 1 : i]) : first;
    const __m256i bytes = _mm256_max_epu8(_mm256_packus_epi16(first, second), lowest);
    const __m256i codes = _mm256_xor_si256(_mm256_permutevar8x32_epi32(bytes, order), flip);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), _mm256_castsi256_si128(codes));
    if (i + 1 < MR) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + g.ldc), _mm256_extracti128_si256(codes, 1));
    }
  }
}

template <int MR>
inline __attribute__((always_inline)) void finish(const IgemmArgs& g, int64_t row, int64_t column,
                                                  __m256i (&acc)[MR][2]) {
  if (makes_codes(g, column)) return store_codes<MR>(g, row, column, acc);
  alignas(32) int32_t sums[MR * kPanel];
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums + i * kPanel), acc[i][0]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums + i * kPanel + 8), acc[i][1]);
  }
  avx2::store_sums(g, row, MR, column, sums);
}

/// What the sums of a column begin with.
inline __attribute__((always_inline)) __m256i start(const IgemmArgs& g, int64_t column, int half) {
  return makes_codes(g, column) ? load32(g.epilogue.corr + column + 8 * half)
                                : _mm256_setzero_si256();
}

/// The panel at `b` for MR rows from `row` on.
template <int MR>
void tile(const IgemmArgs& g, int64_t row, int64_t column, const int8_t* b) noexcept {
  const __m256i start0 = start(g, column, 0);
  const __m256i start1 = start(g, column, 1);
  __m256i acc[MR][2];
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) {
    acc[i][0] = start0;
    acc[i][1] = start1;
  }
  for (int64_t t = 0; t < g.num_taps; ++t) {
    const uint8_t* a[MR];
#pragma GCC unroll 6
    for (int i = 0; i < MR; ++i) a[i] = g.rows[row + i] + g.taps[t];
    for (int64_t k = 0; k < g.run; ++k, b += kPanel * kGroup) {
      const __m256i w0 = load32(b);
      const __m256i w1 = load32(b + 32);
#pragma GCC unroll 6
      for (int i = 0; i < MR; ++i) {
        const __m256i x = load_activations(a[i] + 4 * k);
        acc[i][0] = _mm256_dpbusd_avx_epi32(acc[i][0], x, w0);
        acc[i][1] = _mm256_dpbusd_avx_epi32(acc[i][1], x, w1);
      }
    }
  }
  finish<MR>(g, row, column, acc);
}

/// One row: several k side by side, since five sums per port are under way.
void tile_one_row(const IgemmArgs& g, int64_t row, int64_t column, const int8_t* b) noexcept {
  constexpr int kSteps = 6;
  __m256i acc[kSteps][2];
#pragma GCC unroll 6
  for (int s = 0; s < kSteps; ++s) acc[s][0] = acc[s][1] = _mm256_setzero_si256();
  const auto step = [&](int s, const uint8_t* a, const int8_t* w) __attribute__((always_inline)) {
    const __m256i x = load_activations(a);
    acc[s][0] = _mm256_dpbusd_avx_epi32(acc[s][0], x, load32(w));
    acc[s][1] = _mm256_dpbusd_avx_epi32(acc[s][1], x, load32(w + 32));
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
  __m256i sum[1][2];
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    sum[0][h] = start(g, column, h);
#pragma GCC unroll 6
    for (int s = 0; s < kSteps; ++s) sum[0][h] = _mm256_add_epi32(sum[0][h], acc[s][h]);
  }
  finish<1>(g, row, column, sum);
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
