// SPDX-License-Identifier: Apache-2.0
// Packing of right-hand sides that are activations: four rows interleaved bytewise.
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

/// 16 columns of row i, flipped; zeros behind the last row and column.
inline __attribute__((always_inline)) __m128i load_row(const uint8_t* b, int64_t ldb, int64_t i,
                                                       int64_t k, int64_t columns, __m128i flip) {
  if (i >= k) return _mm_setzero_si128();
  if (columns >= kPanel) {
    const auto* p = reinterpret_cast<const __m128i*>(b + i * ldb);
    return _mm_xor_si128(_mm_loadu_si128(p), flip);
  }
  alignas(16) uint8_t bytes[kPanel] = {};
  const auto mask = static_cast<uint8_t>(_mm_extract_epi8(flip, 0));
  for (int64_t c = 0; c < columns; ++c) bytes[c] = static_cast<uint8_t>(b[i * ldb + c] ^ mask);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(bytes));
}

/// Adds four consecutive bytes of each column: pair sums of int8 fit 16 bits.
inline __attribute__((always_inline)) __m256i add_group(__m256i sum, __m256i w) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), w);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

}  // namespace

void pack(const uint8_t* b, int64_t ldb, int64_t k, int64_t n, uint8_t flip, int8_t* weights,
          int32_t* sums) noexcept {
  const __m128i flips = _mm_set1_epi8(static_cast<char>(flip));
  for (int64_t c = 0; c < n; c += kPanel) {
    __m256i sum0 = _mm256_setzero_si256();
    __m256i sum1 = _mm256_setzero_si256();
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
      const __m256i w0 = _mm256_permute2x128_si256(even, odd, 0x20);
      const __m256i w1 = _mm256_permute2x128_si256(even, odd, 0x31);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights), w0);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + 32), w1);
      sum0 = add_group(sum0, w0);
      sum1 = add_group(sum1, w1);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + c), sum0);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + c + 8), sum1);
  }
}

}  // namespace narrow::kernels::avx2
#endif
