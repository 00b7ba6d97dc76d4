// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/peak_loops.h"
#include "narrow/kernels/x86/peak_assembly.h"

namespace narrow::kernels::avx_vnni {

#define NARROW_ZERO(i) "vpxor %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n\t"
#define NARROW_CHAIN(i) "%{vex%} vpdpbusd %[s], %[u], %%ymm" #i "\n\t"
void multiply_int8(int64_t turns) {
  if (turns < 1) return;
  __asm__ volatile(NARROW_TURNS(NARROW_CHAINS_12, NARROW_ZERO, NARROW_CHAIN)
                   : [count] "+r"(turns)
                   : [u] "x"(_mm256_set1_epi8(3)), [s] "x"(_mm256_set1_epi8(-5))
                   : "cc", NARROW_CLOBBERS_12);
}
#undef NARROW_CHAIN
#undef NARROW_ZERO

}  // namespace narrow::kernels::avx_vnni
#endif
