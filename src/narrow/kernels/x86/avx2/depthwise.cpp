// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution: 16 channels at once, four taps interleaved bytewise, both sides widened to
// 16 bits for vpmaddwd (exact for every input).
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

inline __attribute__((always_inline)) __m128i load16(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}

/// Sums of 16 channels: [j] holds channels 4 * j .. 4 * j + 3, two partial sums each.
struct Sums {
  __m256i v[4];
};

inline __attribute__((always_inline)) void add_taps(Sums& acc, const __m128i (&x)[4],
                                                    const int8_t* w) {
  const __m128i lo01 = _mm_unpacklo_epi8(x[0], x[1]);
  const __m128i hi01 = _mm_unpackhi_epi8(x[0], x[1]);
  const __m128i lo23 = _mm_unpacklo_epi8(x[2], x[3]);
  const __m128i hi23 = _mm_unpackhi_epi8(x[2], x[3]);
  const __m128i y[4] = {_mm_unpacklo_epi16(lo01, lo23), _mm_unpackhi_epi16(lo01, lo23),
                        _mm_unpacklo_epi16(hi01, hi23), _mm_unpackhi_epi16(hi01, hi23)};
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m256i weights = _mm256_cvtepi8_epi16(load16(w + 64 * j));
    acc.v[j] = _mm256_add_epi32(acc.v[j], _mm256_madd_epi16(_mm256_cvtepu8_epi16(y[j]), weights));
  }
}

/// Epilogue of 4 channels whose entries stand at `column`.
inline __attribute__((always_inline)) __m128i finish(const Epilogue& e, __m256i pairs,
                                                     int64_t column) {
  const __m256i summed = _mm256_hadd_epi32(pairs, pairs);  // c0 c1 c0 c1 | c2 c3 c2 c3
  const __m128i sums = _mm256_castsi256_si128(_mm256_permute4x64_epi64(summed, 0xd8));
  const __m128i acc = _mm_add_epi32(sums, load16(e.corr + column));
  if (e.out == Out::s32) return acc;
  __m128 t = _mm_mul_ps(_mm_cvtepi32_ps(acc), _mm_loadu_ps(e.multiplier + column));
  if (e.out == Out::f32 && e.bias != nullptr) t = _mm_add_ps(t, _mm_loadu_ps(e.bias + column));
  t = _mm_max_ps(_mm_min_ps(t, _mm_set1_ps(e.hi)), _mm_set1_ps(e.lo));
  if (e.out == Out::f32) return _mm_castps_si128(t);
  const __m128i code = _mm_add_epi32(_mm_cvtps_epi32(t), _mm_set1_epi32(e.zero_point));
  return _mm_and_si128(code, _mm_set1_epi32(0xff));
}

inline __attribute__((always_inline)) void store(const DepthwiseArgs& g, const Sums& acc,
                                                 int64_t row, int64_t c, int64_t count) {
  // Channel c + 4 * j + i of lane (c / 16) % 4 stands at (j, lane, i) of its block.
  const int64_t at = c % g.period;
  const int64_t column = at / kDepthBlock * kDepthBlock + at % kDepthBlock / 16 * 4;
  alignas(16) __m128i v[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) v[j] = finish(g.epilogue, acc.v[j], column + 16 * j);
  const int64_t offset = row * g.ldc + c;
  if (g.epilogue.out != Out::codes) {
    __builtin_memcpy(static_cast<int32_t*>(g.dst) + offset, v, static_cast<size_t>(count) * 4);
    return;
  }
  const __m128i packed =
      _mm_packus_epi16(_mm_packus_epi32(v[0], v[1]), _mm_packus_epi32(v[2], v[3]));
  uint8_t* dst = static_cast<uint8_t*>(g.dst) + offset;
  if (count == 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), packed);
  } else {
    __builtin_memcpy(dst, &packed, static_cast<size_t>(count));
  }
}

}  // namespace

void depthwise(const DepthwiseArgs& args) noexcept {
  for (int64_t c = 0; c < args.channels; c += 16) {
    const int64_t count = args.channels - c < 16 ? args.channels - c : 16;
    const int64_t at = c % args.period;
    const int8_t* lane =
        args.weights + at / kDepthBlock * (kDepthBlock * args.num_taps) + at % kDepthBlock;
    for (int64_t r = 0; r < args.m; ++r) {
      Sums acc;
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) acc.v[j] = _mm256_setzero_si256();
      for (int64_t t = 0; t < args.num_taps; t += 4) {
        alignas(16) __m128i x[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const uint8_t* p = args.rows[r] + args.taps[t + i] + c;
          x[i] = _mm_setzero_si128();
          if (count == 16) {
            x[i] = load16(p);
          } else {
            __builtin_memcpy(&x[i], p, static_cast<size_t>(count));
          }
        }
        add_taps(acc, x, lane + t * kDepthBlock);
      }
      store(args, acc, r, c, count);
    }
  }
}

}  // namespace narrow::kernels::avx2
#endif
