// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {

void xor_copy(uint8_t* dst, const uint8_t* src, int64_t count, uint8_t mask) noexcept {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(mask));
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + i), _mm256_xor_si256(x, flip));
  }
  for (; i < count; ++i) dst[i] = static_cast<uint8_t>(src[i] ^ mask);
}

}  // namespace narrow::kernels::avx2
#endif
