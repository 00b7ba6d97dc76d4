// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/peak_loops.h"
#include "narrow/kernels/x86/peak_assembly.h"

namespace narrow::kernels::avx2 {

#define NARROW_ZERO(i) "vpxor %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n\t"
#define NARROW_CHAIN(i)                    \
  "vpmaddubsw %[s], %[u], %%ymm10\n\t"     \
  "vpmaddwd %[ones], %%ymm10, %%ymm10\n\t" \
  "vpaddd %%ymm10, %%ymm" #i ", %%ymm" #i "\n\t"
void multiply_int8(int64_t turns) {
  if (turns < 1) return;
  __asm__ volatile(NARROW_TURNS(NARROW_CHAINS_10, NARROW_ZERO, NARROW_CHAIN)
                   : [count] "+r"(turns)
                   : [u] "x"(_mm256_set1_epi8(3)), [s] "x"(_mm256_set1_epi8(-5)),
                     [ones] "x"(_mm256_set1_epi16(1))
                   : "cc", NARROW_CLOBBERS_12);
}
#undef NARROW_CHAIN
#undef NARROW_ZERO

#define NARROW_ZERO(i) "vpxor %%ymm" #i ", %%ymm" #i ", %%ymm" #i "\n\t"
#define NARROW_CHAIN(i) "vfmadd231ps %[b], %[a], %%ymm" #i "\n\t"
void multiply_float32(int64_t turns) {
  if (turns < 1) return;
  __asm__ volatile(NARROW_TURNS(NARROW_CHAINS_12, NARROW_ZERO, NARROW_CHAIN)
                   : [count] "+r"(turns)
                   : [a] "x"(_mm256_set1_ps(0.5F)), [b] "x"(_mm256_set1_ps(0.25F))
                   : "cc", NARROW_CLOBBERS_12);
}
#undef NARROW_CHAIN
#undef NARROW_ZERO

void read_memory(const uint8_t* memory, size_t bytes) {
  const uint8_t* const end = memory + bytes;
  for (; memory < end; memory += kReadStep) {
#pragma GCC unroll 16
    for (size_t i = 0; i < kReadStep; i += 32) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(memory + i));
      __asm__ volatile("" ::"x"(v));
    }
  }
}

}  // namespace narrow::kernels::avx2
#endif
