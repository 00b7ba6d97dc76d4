// SPDX-License-Identifier: Apache-2.0
// Packing of right-hand sides that are activations: four rows interleaved bytewise.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

/// 16 columns of row i, flipped; zeros behind the last row and column.
inline __attribute__((always_inline)) __m128i load_row(const uint8_t* b, int64_t ldb, int64_t i,
                                                       int64_t k, int64_t columns, __m128i flip) {
  if (i >= k) return _mm_setzero_si128();
  const auto mask = static_cast<__mmask16>(columns >= kPanel ? 0xffffu : (1u << columns) - 1u);
  const __m128i x = _mm_maskz_loadu_epi8(mask, b + i * ldb);
  return _mm_maskz_mov_epi8(mask, _mm_xor_si128(x, flip));
}

}  // namespace

void pack(const uint8_t* b, int64_t ldb, int64_t k, int64_t n, uint8_t flip, int8_t* weights,
          int32_t* sums) noexcept {
  const __m128i flips = _mm_set1_epi8(static_cast<char>(flip));
  const __m512i ones = _mm512_set1_epi8(1);
  for (int64_t c = 0; c < n; c += kPanel) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < k; i += kGroup, weights += kPanel * kGroup) {
      const __m128i r0 = load_row(b + c, ldb, i, k, n - c, flips);
      const __m128i r1 = load_row(b + c, ldb, i + 1, k, n - c, flips);
      const __m128i r2 = load_row(b + c, ldb, i + 2, k, n - c, flips);
      const __m128i r3 = load_row(b + c, ldb, i + 3, k, n - c, flips);
      const __m256i lo = _mm256_set_m128i(_mm_unpackhi_epi8(r0, r1), _mm_unpacklo_epi8(r0, r1));
      const __m256i hi = _mm256_set_m128i(_mm_unpackhi_epi8(r2, r3), _mm_unpacklo_epi8(r2, r3));
      // Lanes: columns 0-3 and 8-11, columns 4-7 and 12-15.
      const __m256i even = _mm256_unpacklo_epi16(lo, hi);
      const __m256i odd = _mm256_unpackhi_epi16(lo, hi);
      const __m512i w =
          _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_permute2x128_si256(even, odd, 0x20)),
                             _mm256_permute2x128_si256(even, odd, 0x31), 1);
      _mm512_storeu_si512(weights, w);
      sum = _mm512_dpbusd_epi32(sum, ones, w);
    }
    _mm512_storeu_si512(sums + c, sum);
  }
}

}  // namespace narrow::kernels::avx512_vnni
#endif
