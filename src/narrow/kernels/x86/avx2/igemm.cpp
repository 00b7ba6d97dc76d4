// SPDX-License-Identifier: Apache-2.0
// u8 x s8 GEMM without vpmaddubsw, whose pair sums saturate: both sides are widened to 16 bits
// (activations once per tile, weights on load) and multiplied by vpmaddwd, exact for every input.
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

// 6 rows x 8 columns: 12 accumulators, 2 registers of weights, 1 of activations, 1 temporary.
constexpr int kRows = 6;
// Widened activations of one tile, on the stack: igemm's K is at most this (igemm.h).
constexpr int64_t kStripValues = 65536;

/// Copies the taps of one row as 16-bit values, side by side. Reads 4 * run bytes per tap.
void widen_row(const uint8_t* row, const IgemmArgs& g, int16_t* strip) {
  const int64_t bytes = 4 * g.run;
  for (int64_t t = 0; t < g.num_taps; ++t, strip += bytes) {
    const uint8_t* a = row + g.taps[t];
    int64_t k = 0;
    for (; k + 16 <= bytes; k += 16) {
      const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a + k));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(strip + k), _mm256_cvtepu8_epi16(x));
    }
    for (; k < bytes; k += 4) {
      int32_t four;
      __builtin_memcpy(&four, a + k, 4);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(strip + k),
                       _mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)));
    }
  }
}

inline __attribute__((always_inline)) __m256i load_activations(const int16_t* p) {
  long long v;
  __builtin_memcpy(&v, p, 8);
  return _mm256_set1_epi64x(v);
}

/// Stores the first `left` (at most 8) values of `bytes` each.
inline __attribute__((always_inline)) void store_part(void* dst, __m256i v, int64_t left,
                                                      int64_t bytes) {
  alignas(32) uint8_t all[32];
  _mm256_store_si256(reinterpret_cast<__m256i*>(all), v);
  __builtin_memcpy(dst, all, static_cast<size_t>((left < 8 ? left : 8) * bytes));
}

/// Epilogue of 8 sums of one row from column c on.
inline __attribute__((always_inline)) void store_row(const IgemmArgs& g, int64_t row, int64_t c,
                                                     __m256i acc) {
  const Epilogue& e = g.epilogue;
  const auto load = [c](const auto* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + c));
  };
  const int64_t left = g.n - c;
  const int64_t offset = row * g.ldc + c;
  acc = _mm256_add_epi32(acc, load(e.corr));
  if (e.weight_zero != nullptr) {
    const __m256i sum = _mm256_set1_epi32(g.row_sums[row]);
    acc = _mm256_sub_epi32(acc, _mm256_mullo_epi32(load(e.weight_zero), sum));
  }
  if (e.out == Out::s32) return store_part(static_cast<int32_t*>(g.dst) + offset, acc, left, 4);
  __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), _mm256_loadu_ps(e.multiplier + c));
  if (e.out == Out::f32 && e.bias != nullptr) t = _mm256_add_ps(t, _mm256_loadu_ps(e.bias + c));
  t = _mm256_max_ps(_mm256_min_ps(t, _mm256_set1_ps(e.hi)), _mm256_set1_ps(e.lo));
  if (e.out == Out::f32) {
    return store_part(static_cast<float*>(g.dst) + offset, _mm256_castps_si256(t), left, 4);
  }
  const __m256i code =
      _mm256_and_si256(_mm256_add_epi32(_mm256_cvtps_epi32(t), _mm256_set1_epi32(e.zero_point)),
                       _mm256_set1_epi32(0xff));
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
  const long long packed = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
  uint8_t* dst = static_cast<uint8_t*>(g.dst) + offset;
  if (left >= 8) {
    __builtin_memcpy(dst, &packed, 8);
  } else {
    __builtin_memcpy(dst, &packed, static_cast<size_t>(left));
  }
}

/// Whole panels of codes. They are made as bytes in [0, 255], int8 ones 128 higher until the last
/// step: saturating packs and a maximum do what the lower bound asks.
void store_codes(const IgemmArgs& g, int64_t row, int64_t rows, int64_t c, const int32_t* sums) {
  const Epilogue& e = g.epilogue;
  const int zero_byte = e.zero_point + e.flip;
  const __m256 hi = _mm256_set1_ps(e.hi);
  const __m256i zero = _mm256_set1_epi16(static_cast<short>(zero_byte));
  const __m128i lowest = _mm_set1_epi8(static_cast<char>(static_cast<int>(e.lo) + zero_byte));
  const __m128i flip = _mm_set1_epi8(static_cast<char>(e.flip));
  const auto load = [](const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  };
  const __m256i corr0 = load(e.corr + c);
  const __m256i corr1 = load(e.corr + c + 8);
  const __m256 m0 = _mm256_loadu_ps(e.multiplier + c);
  const __m256 m1 = _mm256_loadu_ps(e.multiplier + c + 8);
  const auto rounded = [&](__m256i acc, __m256 m) {
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc), m), hi));
  };
  uint8_t* dst = static_cast<uint8_t*>(g.dst) + row * g.ldc + c;
  for (int64_t i = 0; i < rows; ++i, sums += kPanel, dst += g.ldc) {
    const __m256i t0 = rounded(_mm256_add_epi32(load(sums), corr0), m0);
    const __m256i t1 = rounded(_mm256_add_epi32(load(sums + 8), corr1), m1);
    // The pack works in 128-bit lanes and leaves the middle quarters swapped.
    const __m256i words =
        _mm256_adds_epi16(_mm256_permute4x64_epi64(_mm256_packs_epi32(t0, t1), 0xd8), zero);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst),
                     _mm_xor_si128(_mm_max_epu8(bytes, lowest), flip));
  }
}

/// Eight columns of MR rows; `b` is the half of the panel that holds them, `sums` their place in
/// [rows][16].
template <int MR>
void tile(const int16_t* strip, int64_t groups, const int8_t* b, int32_t* sums) noexcept {
  __m256i acc[MR][2];
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) acc[i][0] = acc[i][1] = _mm256_setzero_si256();
  for (int64_t k = 0; k < groups; ++k, b += 64) {
    const __m256i w0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
    const __m256i w1 =
        _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 16)));
#pragma GCC unroll 6
    for (int i = 0; i < MR; ++i) {
      const __m256i x = load_activations(strip + 4 * (i * groups + k));
      acc[i][0] = _mm256_add_epi32(acc[i][0], _mm256_madd_epi16(x, w0));
      acc[i][1] = _mm256_add_epi32(acc[i][1], _mm256_madd_epi16(x, w1));
      // Row by row: GCC would load all rows first and then keep sums in memory.
      __asm__ volatile("" : "+x"(acc[i][0]), "+x"(acc[i][1]));
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < MR; ++i) {
    // Two partial sums per column; hadd leaves the pairs of columns in the order 0 2 1 3.
    const __m256i pairs = _mm256_hadd_epi32(acc[i][0], acc[i][1]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + i * kPanel),
                        _mm256_permute4x64_epi64(pairs, 0xd8));
  }
}

using TileFn = void (*)(const int16_t*, int64_t, const int8_t*, int32_t*) noexcept;
constexpr TileFn kTiles[kRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>,
                                      tile<4>, tile<5>, tile<6>};

}  // namespace

void igemm(const IgemmArgs& args) noexcept {
  alignas(64) int16_t strip[kStripValues];
  const int64_t k = 4 * args.num_taps * args.run;
  const int64_t fitting = k > 0 ? kStripValues / k : kRows;
  const int64_t max_rows = fitting < kRows ? fitting : kRows;
  const int64_t tiles = (args.m + max_rows - 1) / max_rows;
  int64_t row = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t rows = (args.m - row) / (tiles - t);
    for (int64_t i = 0; i < rows; ++i) widen_row(args.rows[row + i], args, strip + i * k);
    for (int64_t c = 0; c < args.n; c += kPanel) {
      alignas(32) int32_t sums[kRows * kPanel];
      const int8_t* panel = args.weights + c / kPanel * (k * kPanel);
      kTiles[rows](strip, k / kGroup, panel, sums);
      if (args.n - c > 8) kTiles[rows](strip, k / kGroup, panel + 8 * kGroup, sums + 8);
      store_sums(args, row, rows, c, sums);
    }
    row += rows;
  }
}

void store_sums(const IgemmArgs& args, int64_t row, int64_t rows, int64_t column,
                const int32_t* sums) noexcept {
  const Epilogue& e = args.epilogue;
  if (e.out == Out::codes && e.weight_zero == nullptr && column + kPanel <= args.n) {
    store_codes(args, row, rows, column, sums);
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < kPanel && column + c < args.n; c += 8) {
      const auto* p = reinterpret_cast<const __m256i*>(sums + i * kPanel + c);
      store_row(args, row + i, column + c, _mm256_loadu_si256(p));
    }
  }
}

void row_sums(const uint8_t* const* rows, int64_t m, const int64_t* taps, int64_t num_taps,
              int64_t run_bytes, int32_t* sums) noexcept {
  const __m256i zero = _mm256_setzero_si256();
  for (int64_t r = 0; r < m; ++r) {
    __m256i acc = zero;
    int64_t tail = 0;
    for (int64_t t = 0; t < num_taps; ++t) {
      const uint8_t* a = rows[r] + taps[t];
      int64_t k = 0;
      for (; k + 32 <= run_bytes; k += 32) {
        const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + k));
        acc = _mm256_add_epi64(acc, _mm256_sad_epu8(x, zero));
      }
      for (; k < run_bytes; ++k) tail += a[k];
    }
    alignas(32) int64_t parts[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(parts), acc);
    sums[r] = static_cast<int32_t>(parts[0] + parts[1] + parts[2] + parts[3] + tail);
  }
}

}  // namespace narrow::kernels::avx2
#endif
