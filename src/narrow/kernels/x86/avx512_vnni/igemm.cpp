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

// Accumulators: rows x panels <= 24 of the 32 registers; vpdpbusd has latency 5 at two per cycle,
// so 10 chains are enough. More than 10 rows do not fit the 16 general registers as row pointers.
constexpr int kMaxRows[5] = {0, 10, 10, 8, 6};

struct Tile {
  const IgemmArgs* g;
  int64_t row;     // first row
  int64_t column;  // first column
};

/// The constants of the way from sums to codes. Codes are made as bytes in [0, 255]: int8 codes
/// live there 128 higher until the last step. Saturating packs and a maximum of bytes do what the
/// lower bound asks; the upper one has to come before the conversion, whose overflow is negative.
struct Rounding {
  __m512 hi;
  __m512i zero;  // 16-bit
  __m512i lowest;
  __m512i flip;
  __m512i order;

  explicit inline __attribute__((always_inline)) Rounding(const Epilogue& e) {
    const int zero_byte = e.zero_point + e.flip;
    hi = _mm512_set1_ps(e.hi);
    zero = _mm512_set1_epi16(static_cast<short>(zero_byte));
    lowest = _mm512_set1_epi8(static_cast<char>(static_cast<int>(e.lo) + zero_byte));
    flip = _mm512_set1_epi8(static_cast<char>(e.flip));
    order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  }
};

inline __attribute__((always_inline)) __m512i load_a(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}

inline __attribute__((always_inline)) __m512 bound(__m512 t, const Epilogue& e) {
  return _mm512_max_ps(_mm512_min_ps(t, _mm512_set1_ps(e.hi)), _mm512_set1_ps(e.lo));
}

inline __attribute__((always_inline)) __mmask16 columns_mask(int64_t left) {
  return left >= kPanel ? static_cast<__mmask16>(0xffff)
                        : static_cast<__mmask16>((1u << left) - 1u);
}

inline __attribute__((always_inline)) __m512i rounded(__m512i acc, __m512 multiplier,
                                                      const Rounding& r) {
  const __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier);
  return _mm512_cvtps_epi32(_mm512_min_ps(t, r.hi));
}

/// Four vectors of 16 sums to 64 codes in order.
inline __attribute__((always_inline)) __m512i codes_of(const __m512i (&t)[4], const Rounding& r) {
  const __m512i a = _mm512_adds_epi16(_mm512_packs_epi32(t[0], t[1]), r.zero);
  const __m512i b = _mm512_adds_epi16(_mm512_packs_epi32(t[2], t[3]), r.zero);
  const __m512i bytes = _mm512_max_epu8(_mm512_packus_epi16(a, b), r.lowest);
  return _mm512_permutexvar_epi32(r.order, _mm512_xor_si512(bytes, r.flip));
}

inline __attribute__((always_inline)) __m128i part(__m512i codes, int q) {
  switch (q) {
    case 0:
      return _mm512_castsi512_si128(codes);
    case 1:
      return _mm512_extracti32x4_epi32(codes, 1);
    case 2:
      return _mm512_extracti32x4_epi32(codes, 2);
    default:
      return _mm512_extracti32x4_epi32(codes, 3);
  }
}

/// Every output kind, from sums in memory: the ways that are not worth a copy in each tile.
void store_any(const Tile& at, const int32_t* sums, int rows, int panels) {
  const Epilogue& e = at.g->epilogue;
  const Rounding rounding(e);
  for (int i = 0; i < rows; ++i) {
    const int64_t row = at.row + i;
    for (int p = 0; p < panels; ++p) {
      const int64_t c = at.column + p * kPanel;
      const __mmask16 mask = columns_mask(at.g->n - c);
      __m512i acc = _mm512_loadu_si512(sums + (i * panels + p) * kPanel);
      if (e.weight_zero != nullptr) {
        const __m512i zero = _mm512_loadu_si512(e.weight_zero + c);
        acc =
            _mm512_sub_epi32(acc, _mm512_mullo_epi32(zero, _mm512_set1_epi32(at.g->row_sums[row])));
      }
      const int64_t offset = row * at.g->ldc + c;
      if (e.out == Out::s32) {
        _mm512_mask_storeu_epi32(static_cast<int32_t*>(at.g->dst) + offset, mask, acc);
        continue;
      }
      const __m512 multiplier = _mm512_loadu_ps(e.multiplier + c);
      if (e.out == Out::codes) {
        const __m512i t = rounded(acc, multiplier, rounding);
        const __m512i codes = codes_of({t, t, t, t}, rounding);
        _mm_mask_storeu_epi8(static_cast<uint8_t*>(at.g->dst) + offset, mask, part(codes, 0));
        continue;
      }
      __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier);
      if (e.bias != nullptr) t = _mm512_add_ps(t, _mm512_loadu_ps(e.bias + c));
      _mm512_mask_storeu_ps(static_cast<float*>(at.g->dst) + offset, mask, bound(t, e));
    }
  }
}

/// The tile's sums to codes, four vectors at a time, whichever rows and panels they belong to.
template <int MR, int NP>
inline __attribute__((always_inline)) void store_codes(const Tile& at, __m512i (&acc)[MR][NP]) {
  const Rounding rounding(at.g->epilogue);
  const float* multiplier = at.g->epilogue.multiplier + at.column;
  uint8_t* dst = static_cast<uint8_t*>(at.g->dst) + at.row * at.g->ldc + at.column;
  const int64_t left = at.g->n - at.column;
  if constexpr (NP == 4) {
    const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      __m512i t[4];
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) {
        t[p] = rounded(acc[i][p], _mm512_loadu_ps(multiplier + p * kPanel), rounding);
      }
      _mm512_mask_storeu_epi8(dst + i * at.g->ldc, mask, codes_of(t, rounding));
    }
    return;
  }
  const __mmask16 tail = columns_mask(left - (NP - 1) * kPanel);
#pragma GCC unroll 10
  for (int first = 0; first < MR * NP; first += 4) {
    __m512i t[4];
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const int at_q = first + q < MR * NP ? first + q : first;
      t[q] = rounded(acc[at_q / NP][at_q % NP], _mm512_loadu_ps(multiplier + at_q % NP * kPanel),
                     rounding);
    }
    const __m512i codes = codes_of(t, rounding);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      if (first + q >= MR * NP) break;
      const int p = (first + q) % NP;
      uint8_t* to = dst + (first + q) / NP * at.g->ldc + p * kPanel;
      _mm_mask_storeu_epi8(to, p == NP - 1 ? tail : static_cast<__mmask16>(0xffff), part(codes, q));
    }
  }
}

template <int MR, int NP>
inline __attribute__((always_inline)) void finish(const Tile& at, __m512i (&acc)[MR][NP]) {
  const Epilogue& e = at.g->epilogue;
  if (e.out != Out::codes || e.weight_zero != nullptr) {
    alignas(64) int32_t sums[MR * NP * kPanel];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p) _mm512_store_si512(sums + (i * NP + p) * kPanel, acc[i][p]);
    }
    store_any(at, sums, MR, NP);
    return;
  }
  store_codes<MR, NP>(at, acc);
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
