// SPDX-License-Identifier: Apache-2.0
// Activations in blocks times weights in blocks with the 256-bit vpdpbusd.
#if defined(__x86_64__)
#include <immintrin.h>

#include <array>
#include <type_traits>
#include <utility>

#include "narrow/kernels/x86/avx_vnni/kernels.h"

namespace narrow::kernels::avx_vnni {
namespace {

#include "narrow/kernels/x86/avx2/block_vec.h"
// The body follows.
#include "narrow/kernels/block_gemm_body.h"

}  // namespace

void block_gemm(const BlockGemmArgs& args) noexcept {
  block_gemm_body(args);
}

}  // namespace narrow::kernels::avx_vnni

#endif
