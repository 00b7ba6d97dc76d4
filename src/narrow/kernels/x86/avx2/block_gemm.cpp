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

#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

#include "narrow/kernels/x86/avx2/block_vec.h"
// The body follows.
#include "narrow/kernels/block_gemm_body.h"
// Behind it.
#include "narrow/kernels/block_float_body.h"
#include "narrow/kernels/quantize_blocks_body.h"

__m256i magnitude(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

/// 8 codes of x / scale, as int32.
__m256i quantized(__m256 x, __m256 scale) {
  __m256 t = _mm256_div_ps(x, scale);
  t = _mm256_min_ps(t, _mm256_set1_ps(127.0F));
  t = _mm256_max_ps(t, _mm256_set1_ps(-127.0F));
  return _mm256_cvtps_epi32(t);
}

void quantize_run(const float* x, float* scale, int8_t* codes) {
  __m256 v[4];
  __m256i largest = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_loadu_ps(x + 8 * i);
    largest = _mm256_max_epu32(largest, magnitude(v[i]));
  }
  __m128i top =
      _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  top = _mm_max_epu32(top, _mm_shuffle_epi32(top, 0x4e));
  top = _mm_max_epu32(top, _mm_shuffle_epi32(top, 0xb1));
  const float s = _mm_cvtss_f32(_mm_castsi128_ps(top)) / 127.0F;
  *scale = s;
  auto* out = reinterpret_cast<__m256i*>(codes);
  if (!(s > 0 && s < __builtin_inff())) return _mm256_storeu_si256(out, _mm256_setzero_si256());
  const __m256 all = _mm256_set1_ps(s);
  const __m256i words0 = _mm256_packs_epi32(quantized(v[0], all), quantized(v[1], all));
  const __m256i words1 = _mm256_packs_epi32(quantized(v[2], all), quantized(v[3], all));
  // Packing goes by halves of 128 bits: fours of bytes are put back in order.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(out, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words0, words1), order));
}

/// Sums of the halves of 32 codes.
void sum_halves(const int8_t* codes, int32_t* sums) {
  const __m256i quads = widened(_mm256_maddubs_epi16(_mm256_set1_epi8(1), load32(codes)));
  const __m256i pairs = _mm256_hadd_epi32(quads, quads);
  const __m256i all = _mm256_hadd_epi32(pairs, pairs);
  sums[0] = _mm256_extract_epi32(all, 0);
  sums[1] = _mm256_extract_epi32(all, 4);
}

}  // namespace

void quantize_blocks(const QuantizeBlocksArgs& args) noexcept {
  quantize_blocks_body(args, quantize_run, sum_halves);
}

void block_gemm(const BlockGemmArgs& args) noexcept {
  block_gemm_body(args);
}

void block_float(const BlockFloatArgs& args) noexcept {
  block_float_body(args);
}

}  // namespace narrow::kernels::avx2

#endif
