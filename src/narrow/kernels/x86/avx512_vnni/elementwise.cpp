// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {

void xor_copy(uint8_t* dst, const uint8_t* src, int64_t count, uint8_t mask) noexcept {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(mask));
  for (int64_t i = 0; i < count; i += 64) {
    const int64_t left = count - i;
    const __mmask64 k = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
    const __m512i x = _mm512_maskz_loadu_epi8(k, src + i);
    _mm512_mask_storeu_epi8(dst + i, k, _mm512_xor_si512(x, flip));
  }
}

}  // namespace narrow::kernels::avx512_vnni
#endif
