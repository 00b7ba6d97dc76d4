// SPDX-License-Identifier: Apache-2.0
// Float activations times 8- or 4-bit weights. Few rows: weights become floats in registers and are
// used at once. More rows: a stretch of one panel becomes floats in a buffer that stays in the L1
// cache while the rows pass.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

// Values of k whose floats are buffered: 16 KiB of a 32 or 48 KiB L1 cache.
constexpr int64_t kStretch = 256;
constexpr int kTileRows = 8;

using Vec = __m512;  // 16 columns

inline __attribute__((always_inline)) Vec load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline __attribute__((always_inline)) Vec zeros() {
  return _mm512_setzero_ps();
}
inline __attribute__((always_inline)) Vec add(Vec a, Vec b) {
  return _mm512_add_ps(a, b);
}
inline __attribute__((always_inline)) void store_all(float* p, Vec v) {
  _mm512_storeu_ps(p, v);
}
inline __attribute__((always_inline)) void store_part(float* p, Vec v, int64_t left) {
  const auto mask = static_cast<__mmask16>(left >= kPanel ? 0xffffu : (1u << left) - 1u);
  _mm512_mask_storeu_ps(p, mask, v);
}
/// *x * w + sum.
inline __attribute__((always_inline)) Vec multiply_add(const float* x, Vec w, Vec sum) {
  return _mm512_fmadd_ps(_mm512_set1_ps(*x), w, sum);
}

template <int Bits>
inline __attribute__((always_inline)) Vec load_codes(const uint8_t* p) {
  if constexpr (Bits == 8) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  } else {
    const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i both = _mm_unpacklo_epi64(pairs, _mm_srli_epi16(pairs, 4));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_and_si128(both, _mm_set1_epi8(15))));
  }
}
inline __attribute__((always_inline)) Vec dequantized(Vec codes, const float* zero,
                                                      const float* scale) {
  return _mm512_mul_ps(_mm512_sub_ps(codes, load(zero)), load(scale));
}

/// One panel's codes with their grids.
struct Panel {
  const uint8_t* codes;
  const float* scale;
  const float* zero;
  const int32_t* group;
};

/// Row k of the panel as 16 floats.
template <int Bits>
inline __attribute__((always_inline)) Vec weights_at(const Panel& p, int64_t k) {
  const int64_t at = p.group == nullptr ? 0 : p.group[k] * kPanel;
  return dequantized(load_codes<Bits>(p.codes + k * (2 * Bits)), p.zero + at, p.scale + at);
}

inline __attribute__((always_inline)) void store(const WgemmArgs& g, int64_t row, int64_t column,
                                                 Vec sum) {
  sum = add(sum, load(g.bias + column));
  store_part(g.dst + row * g.ldc + column, sum, g.n - column);
}

/// All of K for MR rows, weights in registers. One row runs Chains sums side by side, so that the
/// latency of the additions is hidden.
template <int Bits, int MR, int Chains>
void fused(const WgemmArgs& g, const Panel& panel, int64_t row, int64_t column) noexcept {
  Vec acc[Chains][MR];
#pragma GCC unroll 4
  for (int s = 0; s < Chains; ++s) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) acc[s][i] = zeros();
  }
  int64_t at = 0;
  for (int64_t t = 0; t < g.num_taps; ++t) {
    const float* x[MR];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) x[i] = g.rows[row + i] + g.taps[t];
    int64_t k = 0;
    for (; k + Chains <= g.run; k += Chains, at += Chains) {
#pragma GCC unroll 4
      for (int s = 0; s < Chains; ++s) {
        const Vec w = weights_at<Bits>(panel, at + s);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) acc[s][i] = multiply_add(x[i] + k + s, w, acc[s][i]);
      }
    }
    for (; k < g.run; ++k, ++at) {
      const Vec w = weights_at<Bits>(panel, at);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) acc[0][i] = multiply_add(x[i] + k, w, acc[0][i]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int s = 1; s < Chains; ++s) acc[0][i] = add(acc[0][i], acc[s][i]);
    store(g, row + i, column, acc[0][i]);
  }
}

/// Adds the products of k in [begin, end) with buffered weights to the sums of MR rows.
template <int MR>
void buffered(const WgemmArgs& g, const float* weights, int64_t row, int64_t begin, int64_t end,
              float* sums) noexcept {
  Vec acc[MR];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) acc[i] = load(sums + i * kPanel);
  int64_t tap = begin / g.run;
  int64_t k = begin % g.run;
  while (begin < end) {
    const int64_t stop = g.run - k < end - begin ? g.run : k + end - begin;
    const float* x[MR];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) x[i] = g.rows[row + i] + g.taps[tap];
    begin += stop - k;
    for (; k < stop; ++k, weights += kPanel) {
      const Vec w = load(weights);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) acc[i] = multiply_add(x[i] + k, w, acc[i]);
    }
    k = 0;
    ++tap;
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) store_all(sums + i * kPanel, acc[i]);
}

using FusedFn = void (*)(const WgemmArgs&, const Panel&, int64_t, int64_t) noexcept;
using BufferedFn = void (*)(const WgemmArgs&, const float*, int64_t, int64_t, int64_t,
                            float*) noexcept;

template <int Bits>
constexpr FusedFn kFused[kTileRows + 1] = {nullptr,           fused<Bits, 1, 4>, fused<Bits, 2, 2>,
                                           fused<Bits, 3, 2>, fused<Bits, 4, 1>, fused<Bits, 5, 1>,
                                           fused<Bits, 6, 1>, fused<Bits, 7, 1>, fused<Bits, 8, 1>};
constexpr BufferedFn kBuffered[kTileRows + 1] = {nullptr,     buffered<1>, buffered<2>,
                                                 buffered<3>, buffered<4>, buffered<5>,
                                                 buffered<6>, buffered<7>, buffered<8>};

template <int Bits>
void run_panel(const WgemmArgs& g, const Panel& panel, int64_t column) {
  if (g.m <= kFusedRows) {
    for (int64_t row = 0; row < g.m; row += kTileRows) {
      const int64_t rows = g.m - row < kTileRows ? g.m - row : kTileRows;
      kFused<Bits>[rows](g, panel, row, column);
    }
    return;
  }
  alignas(64) float sums[kWgemmRows * kPanel];
  alignas(64) float weights[kStretch * kPanel];
  for (int64_t i = 0; i < g.m; ++i) store_all(sums + i * kPanel, zeros());
  const int64_t total = g.num_taps * g.run;
  for (int64_t begin = 0; begin < total; begin += kStretch) {
    const int64_t end = total - begin < kStretch ? total : begin + kStretch;
    for (int64_t k = begin; k < end; ++k) {
      store_all(weights + (k - begin) * kPanel, weights_at<Bits>(panel, k));
    }
    for (int64_t row = 0; row < g.m; row += kTileRows) {
      const int64_t rows = g.m - row < kTileRows ? g.m - row : kTileRows;
      kBuffered[rows](g, weights, row, begin, end, sums + row * kPanel);
    }
  }
  for (int64_t i = 0; i < g.m; ++i) store(g, i, column, load(sums + i * kPanel));
}

}  // namespace

void wgemm(const WgemmArgs& g) noexcept {
  const int64_t panel_bytes = g.num_taps * g.run * kPanel * g.bits / 8;
  for (int64_t column = 0; column < g.n; column += kPanel) {
    const Panel panel = {g.weights + column / kPanel * panel_bytes, g.scale + column * g.groups,
                         g.zero + column * g.groups, g.group};
    if (g.bits == 8) {
      run_panel<8>(g, panel, column);
    } else {
      run_panel<4>(g, panel, column);
    }
  }
}

}  // namespace narrow::kernels::avx512_vnni
#endif
