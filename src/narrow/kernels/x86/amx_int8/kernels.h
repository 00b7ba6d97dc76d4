// SPDX-License-Identifier: Apache-2.0
// Kernels compiled for AVX-512 with VNNI and AMX (tiles, int8). What is not here is taken from
// avx512_vnni.
#pragma once

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::amx_int8 {

void igemm(const IgemmArgs& args) noexcept;
void igemm4(const IgemmArgs& args) noexcept;
using avx512_vnni::block_gemm;
using avx512_vnni::kBlockTile;

}  // namespace narrow::kernels::amx_int8
