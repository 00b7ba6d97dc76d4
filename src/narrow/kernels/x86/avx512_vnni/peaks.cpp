// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/peak_loops.h"
#include "narrow/kernels/x86/peak_assembly.h"

namespace narrow::kernels::avx512_vnni {

#define NARROW_ZERO(i) "vpxord %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n\t"
#define NARROW_CHAIN(i) "vpdpbusd %[s], %[u], %%zmm" #i "\n\t"
void multiply_int8(int64_t turns) {
  if (turns < 1) return;
  __asm__ volatile(NARROW_TURNS(NARROW_CHAINS_16, NARROW_ZERO, NARROW_CHAIN)
                   : [count] "+r"(turns)
                   : [u] "v"(_mm512_set1_epi8(3)), [s] "v"(_mm512_set1_epi8(-5))
                   : "cc", NARROW_CLOBBERS_16);
}
#undef NARROW_CHAIN
#undef NARROW_ZERO

#define NARROW_ZERO(i) "vpxord %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n\t"
#define NARROW_CHAIN(i) "vfmadd231ps %[b], %[a], %%zmm" #i "\n\t"
void multiply_float32(int64_t turns) {
  if (turns < 1) return;
  __asm__ volatile(NARROW_TURNS(NARROW_CHAINS_16, NARROW_ZERO, NARROW_CHAIN)
                   : [count] "+r"(turns)
                   : [a] "v"(_mm512_set1_ps(0.5F)), [b] "v"(_mm512_set1_ps(0.25F))
                   : "cc", NARROW_CLOBBERS_16);
}
#undef NARROW_CHAIN
#undef NARROW_ZERO

void read_memory(const uint8_t* memory, size_t bytes) {
  const uint8_t* const end = memory + bytes;
  for (; memory < end; memory += kReadStep) {
#pragma GCC unroll 8
    for (size_t i = 0; i < kReadStep; i += 64) {
      const __m512i v = _mm512_load_si512(memory + i);
      __asm__ volatile("" ::"v"(v));
    }
  }
}

}  // namespace narrow::kernels::avx512_vnni
#endif
