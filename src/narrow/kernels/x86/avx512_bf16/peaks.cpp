// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/peak_loops.h"
#include "narrow/kernels/x86/peak_assembly.h"

namespace narrow::kernels::avx512_bf16 {

#define NARROW_ZERO(i) "vpxord %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n\t"
#define NARROW_CHAIN(i) "vdpbf16ps %[b], %[a], %%zmm" #i "\n\t"
// 0.5 and 0.25, many times.
void multiply_bfloat16(int64_t turns) {
  if (turns < 1) return;
  __asm__ volatile(NARROW_TURNS(NARROW_CHAINS_16, NARROW_ZERO, NARROW_CHAIN)
                   : [count] "+r"(turns)
                   : [a] "v"(_mm512_set1_epi16(0x3F00)), [b] "v"(_mm512_set1_epi16(0x3E80))
                   : "cc", NARROW_CLOBBERS_16);
}
#undef NARROW_CHAIN
#undef NARROW_ZERO

}  // namespace narrow::kernels::avx512_bf16
#endif
