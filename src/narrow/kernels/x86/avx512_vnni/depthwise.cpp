// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution: 64 channels at once. Four taps are interleaved bytewise by two levels of
// unpacking, so that vpdpbusd sums them per channel; packing the sums again undoes the order.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

inline __attribute__((always_inline)) __m512 bound(__m512 t, const Epilogue& e) {
  return _mm512_max_ps(_mm512_min_ps(t, _mm512_set1_ps(e.hi)), _mm512_set1_ps(e.lo));
}

struct Sums {
  __m512i v[4];  // [j]: channel 16 * lane + 4 * j + i in lane, i
};

/// Adds taps t .. t + 3 of 64 channels.
inline __attribute__((always_inline)) void add_taps(Sums& acc, const uint8_t* row,
                                                    const int64_t* taps, const int8_t* w,
                                                    __mmask64 mask) {
  const __m512i x0 = _mm512_maskz_loadu_epi8(mask, row + taps[0]);
  const __m512i x1 = _mm512_maskz_loadu_epi8(mask, row + taps[1]);
  const __m512i x2 = _mm512_maskz_loadu_epi8(mask, row + taps[2]);
  const __m512i x3 = _mm512_maskz_loadu_epi8(mask, row + taps[3]);
  const __m512i lo01 = _mm512_unpacklo_epi8(x0, x1);
  const __m512i hi01 = _mm512_unpackhi_epi8(x0, x1);
  const __m512i lo23 = _mm512_unpacklo_epi8(x2, x3);
  const __m512i hi23 = _mm512_unpackhi_epi8(x2, x3);
  const __m512i x[4] = {_mm512_unpacklo_epi16(lo01, lo23), _mm512_unpackhi_epi16(lo01, lo23),
                        _mm512_unpacklo_epi16(hi01, hi23), _mm512_unpackhi_epi16(hi01, hi23)};
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    acc.v[j] = _mm512_dpbusd_epi32(acc.v[j], x[j], _mm512_loadu_si512(w + 64 * j));
  }
}

inline __attribute__((always_inline)) void store(const DepthwiseArgs& g, const Sums& acc,
                                                 int64_t row, int64_t c, __mmask64 mask) {
  const Epilogue& e = g.epilogue;
  __m512i v[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    v[j] = acc.v[j];
    if (e.out == Out::s32) continue;
    __m512 t =
        _mm512_mul_ps(_mm512_cvtepi32_ps(acc.v[j]), _mm512_loadu_ps(e.multiplier + c + 16 * j));
    if (e.out == Out::f32 && e.bias != nullptr) {
      t = _mm512_add_ps(t, _mm512_loadu_ps(e.bias + c + 16 * j));
    }
    t = bound(t, e);
    v[j] = e.out == Out::f32
               ? _mm512_castps_si512(t)
               : _mm512_add_epi32(_mm512_cvtps_epi32(t), _mm512_set1_epi32(e.zero_point));
  }
  const int64_t offset = row * g.ldc + c;
  if (e.out == Out::codes) {
    // The low bytes; masked, so that both packs keep them as they are.
    const __m512i byte = _mm512_set1_epi32(0xff);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) v[j] = _mm512_and_si512(v[j], byte);
    const __m512i packed =
        _mm512_packus_epi16(_mm512_packus_epi32(v[0], v[1]), _mm512_packus_epi32(v[2], v[3]));
    _mm512_mask_storeu_epi8(static_cast<uint8_t*>(g.dst) + offset, mask, packed);
    return;
  }
  alignas(64) int32_t all[64];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    _mm512_store_si512(all + 16 * j, v[j]);
  }
  int32_t* dst = static_cast<int32_t*>(g.dst) + offset;
  for (int i = 0; i < 64 && (mask >> i & 1) != 0; ++i) {
    dst[i] = all[i / 4 % 4 * 16 + i / 16 * 4 + i % 4];
  }
}

}  // namespace

void depthwise(const DepthwiseArgs& args) noexcept {
  for (int64_t c = 0; c < args.channels; c += kDepthBlock) {
    const int64_t left = args.channels - c;
    const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
    const int8_t* block = args.weights + c * args.num_taps;
    Sums start;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) start.v[j] = _mm512_loadu_si512(args.epilogue.corr + c + 16 * j);
    for (int64_t r = 0; r < args.m; ++r) {
      Sums acc = start;
      for (int64_t t = 0; t < args.num_taps; t += 4) {
        add_taps(acc, args.rows[r] + c, args.taps + t, block + t * kDepthBlock, mask);
      }
      store(args, acc, r, c, mask);
    }
  }
}

}  // namespace narrow::kernels::avx512_vnni
#endif
