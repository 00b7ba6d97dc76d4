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

__m512i magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

/// 16 codes of x / scale.
void store_quantized(int8_t* codes, __m512 x, __m512 scale, __mmask16 usable) {
  __m512 t = _mm512_maskz_div_ps(usable, x, scale);
  t = _mm512_min_ps(t, _mm512_set1_ps(127.0F));
  t = _mm512_max_ps(t, _mm512_set1_ps(-127.0F));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(t)));
}

void quantize_run(const float* x, float* scale, int8_t* codes) {
  const __m512 a = _mm512_loadu_ps(x);
  const __m512 b = _mm512_loadu_ps(x + 16);
  const uint32_t largest = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitude(a), magnitude(b)));
  const float s =
      _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(largest)))) / 127.0F;
  *scale = s;
  const auto usable = static_cast<__mmask16>(s > 0 && s < __builtin_inff() ? 0xffff : 0);
  const __m512 all = _mm512_set1_ps(s);
  store_quantized(codes, a, all, usable);
  store_quantized(codes + 16, b, all, usable);
}

/// Sums of the halves of 32 codes.
void sum_halves(const int8_t* codes, int32_t* sums) {
  const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  const __m256i quads = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), c);
  const __m256i pairs = _mm256_hadd_epi32(quads, quads);
  const __m256i all = _mm256_hadd_epi32(pairs, pairs);
  sums[0] = _mm256_extract_epi32(all, 0);
  sums[1] = _mm256_extract_epi32(all, 4);
}

}  // namespace

void quantize_blocks(const QuantizeBlocksArgs& args) noexcept {
  const BlockRows& rows = args.rows;
  const int64_t parts = kRun / args.group;
  const int64_t runs = args.k / kRun;
  for (int64_t r = args.begin; r < args.end; ++r) {
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t in_stretch = run % kStretchRuns;
      const int64_t before = run - in_stretch;
      const int64_t width = runs - before < kStretchRuns ? runs - before : kStretchRuns;
      const int64_t i = r % rows.tile;
      const int64_t at = before * rows.padded + (r - i) * width + in_stretch * rows.tile;
      int8_t* codes = rows.codes + (at + i) * kRun;
      quantize_run(args.x + r * args.k + run * kRun, rows.scales + at + i, codes);
      if (rows.start == nullptr) continue;
      int32_t sums[2];
      sum_halves(codes, sums);
      if (parts == 1) sums[0] += sums[1];
      for (int64_t p = 0; p < parts; ++p) {
        rows.start[at * parts + p * rows.tile + i] = -args.zero * sums[p];
        rows.sums[at * parts + p * rows.tile + i] = static_cast<float>(sums[p]);
      }
    }
  }
}

void block_gemm(const BlockGemmArgs& args) noexcept {
  block_gemm_body(args);
}

}  // namespace narrow::kernels::avx512_vnni

#endif
