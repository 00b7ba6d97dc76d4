// SPDX-License-Identifier: Apache-2.0
// Kernels compiled for AVX2 with F16C and FMA.
#pragma once

#include "narrow/kernels/kernel_types.h"

namespace narrow::kernels::avx2 {

void igemm(const IgemmArgs& args) noexcept;
void row_sums(const uint8_t* const* rows, int64_t m, const int64_t* taps, int64_t num_taps,
              int64_t run_bytes, int32_t* sums) noexcept;
void depthwise(const DepthwiseArgs& args) noexcept;
void xor_copy(uint8_t* dst, const uint8_t* src, int64_t count, uint8_t mask) noexcept;

}  // namespace narrow::kernels::avx2
