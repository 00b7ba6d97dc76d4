// SPDX-License-Identifier: Apache-2.0
// Weights in blocks: quantization of the activations, and the product.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <array>
#include <type_traits>
#include <utility>

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

#include "narrow/kernels/x86/avx512_vnni/block_vec.h"
// The body follows.
#include "narrow/kernels/block_gemm_body.h"
// Behind it.
#include "narrow/kernels/block_float_body.h"
#include "narrow/kernels/quantize_blocks_body.h"

__m512i magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

/// 16 codes of x / scale.
__m128i quantized(__m512 x, __m512 scale, __mmask16 usable) {
  __m512 t = _mm512_maskz_div_ps(usable, x, scale);
  t = _mm512_min_ps(t, _mm512_set1_ps(127.0F));
  t = _mm512_max_ps(t, _mm512_set1_ps(-127.0F));
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(t));
}

constexpr int kAtOnce = 4;  // runs whose scales are made together

/// The largest of each of four vectors, [a b c d] in every 128 bits.
__m512i largest4(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_max_epu32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_max_epu32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  __m512i all = _mm512_max_epu32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  all = _mm512_max_epu32(all, _mm512_shuffle_i32x4(all, all, 0x4e));
  return _mm512_max_epu32(all, _mm512_shuffle_i32x4(all, all, 0xb1));
}

struct FourRuns {
  float scales[kAtOnce];
  int32_t sums[2 * kAtOnce];  // of the first halves, then of the second ones
};

/// 128 values of a row; run i of codes stands at i * pitch.
FourRuns quantize_runs(const float* x, int8_t* codes, int64_t pitch) {
  __m512i m[kAtOnce];
  for (int i = 0; i < kAtOnce; ++i) {
    m[i] = _mm512_max_epu32(magnitude(_mm512_loadu_ps(x + 32 * i)),
                            magnitude(_mm512_loadu_ps(x + 32 * i + 16)));
  }
  const __m512 largest = _mm512_castsi512_ps(largest4(m[0], m[1], m[2], m[3]));
  const __m128 scale = _mm_div_ps(_mm512_castps512_ps128(largest), _mm_set1_ps(127.0F));
  FourRuns out;
  _mm_storeu_ps(out.scales, scale);
  const __m128 infinity = _mm_set1_ps(__builtin_inff());
  // Zeros in the place of scales that cannot be divided by.
  const __m128 usable =
      _mm_and_ps(_mm_cmpgt_ps(scale, _mm_setzero_ps()), _mm_cmplt_ps(scale, infinity));
  const __m512 all = _mm512_broadcast_f32x4(_mm_and_ps(scale, usable));
  // Writes 32 codes and returns the sums of their fours.
  const auto quantize = [&](int i, __m512 s) __attribute__((always_inline)) {
    const __mmask16 mask = _mm512_cmp_ps_mask(s, _mm512_setzero_ps(), _CMP_GT_OQ);
    const __m256i c = _mm256_set_m128i(quantized(_mm512_loadu_ps(x + 32 * i + 16), s, mask),
                                       quantized(_mm512_loadu_ps(x + 32 * i), s, mask));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + i * pitch), c);
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), c);
  };
  const __m256i q0 = quantize(0, _mm512_permute_ps(all, 0x00));
  const __m256i q1 = quantize(1, _mm512_permute_ps(all, 0x55));
  const __m256i q2 = quantize(2, _mm512_permute_ps(all, 0xaa));
  const __m256i q3 = quantize(3, _mm512_permute_ps(all, 0xff));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.sums),
                      _mm256_hadd_epi32(_mm256_hadd_epi32(q0, q1), _mm256_hadd_epi32(q2, q3)));
  return out;
}

}  // namespace

void quantize_blocks(const QuantizeBlocksArgs& args) noexcept {
  const BlockRows& rows = args.rows;
  const int64_t runs = args.k / kRun;
  static_assert(kStretchRuns % kAtOnce == 0);
  for (int64_t r = args.begin; r < args.end; ++r) {
    for (int64_t run = 0; run < runs; run += kAtOnce) {
      const int64_t i = r % rows.tile;
      const int64_t at = run_place(args, r, run);
      const float* x = args.x + r * args.k + run * kRun;
      int8_t* codes = rows.codes + (at + i) * kRun;
      const int64_t pitch = rows.tile * kRun;
      const int64_t count = runs - run < kAtOnce ? runs - run : kAtOnce;
      FourRuns four;
      if (count == kAtOnce) {
        four = quantize_runs(x, codes, pitch);
      } else {
        // The end of a row whose length is no multiple of 128: zeros behind it.
        float values[kAtOnce * kRun] = {};
        int8_t quantized[kAtOnce * kRun];
        __builtin_memcpy(values, x, static_cast<size_t>(count * kRun) * sizeof(float));
        four = quantize_runs(values, quantized, kRun);
        for (int64_t j = 0; j < count; ++j) {
          __builtin_memcpy(codes + j * pitch, quantized + j * kRun, kRun);
        }
      }
      for (int64_t j = 0; j < count; ++j) {
        const int64_t place = at + j * rows.tile;
        rows.scales[place + i] = four.scales[j];
        store_sums(args, place, r, four.sums[j], four.sums[kAtOnce + j]);
      }
    }
  }
}

void block_gemm(const BlockGemmArgs& args) noexcept {
  block_gemm_body(args);
}

void block_float(const BlockFloatArgs& args) noexcept {
  block_float_body(args);
}

}  // namespace narrow::kernels::avx512_vnni

#endif
