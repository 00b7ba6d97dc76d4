// SPDX-License-Identifier: Apache-2.0
// u8 x 4-bit GEMM with vpdpbusd. A nibble becomes the high half of a byte, 16 times its code: sums
// come out 16 times too large, which 65536 products of 255 and -128 still leave in 32 bits.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

#include "narrow/kernels/x86/avx512_vnni/epilogue_body.h"

// Accumulators and the weights of one group beside each other in 32 registers.
constexpr int kMaxRows[5] = {0, 10, 10, 8, 5};
// Unpacked panels on the stack, in the L2 cache.
constexpr int64_t kUnpackedBytes = 128 * 1024;

inline __attribute__((always_inline)) __m512i load_a(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}
inline __attribute__((always_inline)) __m512i low(__m512i nibbles) {
  return _mm512_and_si512(_mm512_slli_epi32(nibbles, 4), _mm512_set1_epi8(static_cast<char>(0xf0)));
}
inline __attribute__((always_inline)) __m512i high(__m512i nibbles) {
  return _mm512_and_si512(nibbles, _mm512_set1_epi8(static_cast<char>(0xf0)));
}

int64_t panel_bytes(const IgemmArgs& g) {
  return (g.run + 1) / 2 * 64;
}

template <int MR, int NP>
inline __attribute__((always_inline)) void finish_scaled(const Tile& at, __m512i (&acc)[MR][NP]) {
#pragma GCC unroll 4
  for (int p = 0; p < NP; ++p) {
    const __m512i corr = _mm512_loadu_si512(at.g->epilogue.corr + at.column + p * kPanel);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      acc[i][p] = _mm512_add_epi32(_mm512_srai_epi32(acc[i][p], 4), corr);
    }
  }
  finish<MR, NP>(at, acc);
}

template <int MR, int NP>
void tile(const Tile& at) noexcept {
  const IgemmArgs& g = *at.g;
  const int64_t pitch = panel_bytes(g);
  const int8_t* b = g.weights + at.column / kPanel * pitch;
  __m512i acc[MR][NP];
  const uint8_t* a[MR];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
    a[i] = g.rows[at.row + i] + g.taps[0];
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p) acc[i][p] = _mm512_setzero_si512();
  }
  const auto step = [&](const __m512i(&w)[NP], int64_t k) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const __m512i x = load_a(a[i] + 4 * k);
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p) {
        acc[i][p] = _mm512_dpbusd_epi32(acc[i][p], x, w[p]);
        // GCC would keep some sums in memory otherwise.
        __asm__ volatile("" : "+v"(acc[i][p]));
      }
    }
  };
  __m512i w[NP];
  int64_t k = 0;
  for (; k + 2 <= g.run; k += 2, b += 64) {
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p) w[p] = low(_mm512_loadu_si512(b + p * pitch));
    step(w, k);
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p) w[p] = high(_mm512_loadu_si512(b + p * pitch));
    step(w, k + 1);
  }
  if (k < g.run) {
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p) w[p] = low(_mm512_loadu_si512(b + p * pitch));
    step(w, k);
  }
  finish_scaled<MR, NP>(at, acc);
}

/// One row: several k side by side, which hides the latency.
template <int NP>
void tile_one_row(const Tile& at) noexcept {
  constexpr int kPairs = NP == 1 ? 4 : 2;
  const IgemmArgs& g = *at.g;
  const int64_t pitch = panel_bytes(g);
  const int8_t* b = g.weights + at.column / kPanel * pitch;
  const uint8_t* a = g.rows[at.row] + g.taps[0];
  __m512i acc[2 * kPairs][NP];
#pragma GCC unroll 8
  for (int s = 0; s < 2 * kPairs; ++s) {
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p) acc[s][p] = _mm512_setzero_si512();
  }
  int64_t k = 0;
  for (; k + 2 * kPairs <= g.run; k += 2 * kPairs, b += 64 * kPairs) {
#pragma GCC unroll 4
    for (int s = 0; s < kPairs; ++s) {
      const __m512i x0 = load_a(a + 4 * (k + 2 * s));
      const __m512i x1 = load_a(a + 4 * (k + 2 * s + 1));
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p) {
        const __m512i w = _mm512_loadu_si512(b + p * pitch + 64 * s);
        acc[2 * s][p] = _mm512_dpbusd_epi32(acc[2 * s][p], x0, low(w));
        acc[2 * s + 1][p] = _mm512_dpbusd_epi32(acc[2 * s + 1][p], x1, high(w));
      }
    }
  }
  for (; k < g.run; k += 2, b += 64) {
    const __m512i x0 = load_a(a + 4 * k);
    const __m512i x1 = k + 1 < g.run ? load_a(a + 4 * k + 4) : _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p) {
      const __m512i w = _mm512_loadu_si512(b + p * pitch);
      acc[0][p] = _mm512_dpbusd_epi32(acc[0][p], x0, low(w));
      acc[1][p] = _mm512_dpbusd_epi32(acc[1][p], x1, high(w));
    }
  }
  __m512i sum[1][NP];
#pragma GCC unroll 4
  for (int p = 0; p < NP; ++p) {
    sum[0][p] = acc[0][p];
#pragma GCC unroll 8
    for (int s = 1; s < 2 * kPairs; ++s) sum[0][p] = _mm512_add_epi32(sum[0][p], acc[s][p]);
  }
  finish_scaled<1, NP>(at, sum);
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
    {nullptr, tile_one_row<4>, tile<2, 4>, tile<3, 4>, tile<4, 4>, tile<5, 4>}};

/// One panel as igemm takes it.
void unpack(const int8_t* nibbles, int64_t groups, int8_t* panel) {
  const __m512i eight = _mm512_set1_epi8(8);
  const __m512i fifteen = _mm512_set1_epi8(15);
  // x ^ 8 - 8 extends the sign of a nibble.
  const auto extended = [&](__m512i v) {
    return _mm512_sub_epi8(_mm512_xor_si512(_mm512_and_si512(v, fifteen), eight), eight);
  };
  for (int64_t k = 0; k < groups; k += 2, nibbles += 64, panel += 128) {
    const __m512i w = _mm512_loadu_si512(nibbles);
    _mm512_store_si512(panel, extended(w));
    if (k + 1 < groups) _mm512_store_si512(panel + 64, extended(_mm512_srli_epi32(w, 4)));
  }
}

}  // namespace

bool igemm4_unpacked(const IgemmArgs& args, IgemmFn igemm) noexcept {
  if (args.run == 0 || args.run * 64 > kUnpackedBytes) return false;
  alignas(64) int8_t unpacked[kUnpackedBytes];
  const int64_t panel_bytes = (args.run + 1) / 2 * 64;
  const int64_t fitting = kUnpackedBytes / (args.run * 64);
  const int64_t step = (fitting < 4 ? fitting : 4) * kPanel;
  const int64_t element = args.epilogue.out == Out::codes ? 1 : 4;
  for (int64_t c = 0; c < args.n; c += step) {
    const int64_t n = args.n - c < step ? args.n - c : step;
    for (int64_t p = 0; p < n; p += kPanel) {
      unpack(args.weights + (c + p) / kPanel * panel_bytes, args.run,
             unpacked + p * args.run * kGroup);
    }
    IgemmArgs part = args;
    part.weights = unpacked;
    part.n = n;
    Epilogue& e = part.epilogue;
    e.corr += c;
    if (e.multiplier != nullptr) e.multiplier += c;
    if (e.weight_zero != nullptr) e.weight_zero += c;
    if (e.bias != nullptr) e.bias += c;
    part.dst = static_cast<std::byte*>(args.dst) + c * element;
    igemm(part);
  }
  return true;
}

void igemm4(const IgemmArgs& args) noexcept {
  const int64_t panels = (args.n + kPanel - 1) / kPanel;
  for (int64_t p = 0; p < panels;) {
    const int64_t np = panels - p < 4 ? panels - p : 4;
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

}  // namespace narrow::kernels::avx512_vnni
#endif
