// SPDX-License-Identifier: Apache-2.0
// Kernels compiled for AVX2 with AVX-VNNI (the 256-bit, VEX-encoded vpdpbusd of client CPUs). What
// is not here is taken from avx2.
#pragma once

#include "narrow/kernels/kernel_types.h"

namespace narrow::kernels::avx_vnni {

void igemm(const IgemmArgs& args) noexcept;
void igemm4(const IgemmArgs& args) noexcept;
void depthwise(const DepthwiseArgs& args) noexcept;
void depthwise_row(const DepthwiseRowArgs& args) noexcept;
void block_gemm(const BlockGemmArgs& args) noexcept;
inline constexpr int64_t kBlockTile = 6;

}  // namespace narrow::kernels::avx_vnni
