// SPDX-License-Identifier: Apache-2.0
// Float activations times 16-bit weights.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/float_types.h"
#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

#include "narrow/kernels/x86/avx2/float_vec.h"
// The body follows.
#include "narrow/kernels/half_gemm_body.h"

}  // namespace

void half_gemm(const HalfGemmArgs& args) noexcept {
  half_gemm_body(args);
}

}  // namespace narrow::kernels::avx2

#endif
