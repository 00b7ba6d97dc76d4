// SPDX-License-Identifier: Apache-2.0
// Kernels compiled for AVX-512 (F, BW, VL, DQ) with VNNI.
#pragma once

#include "narrow/kernels/kernel_types.h"
#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx512_vnni {

void igemm(const IgemmArgs& args) noexcept;
void igemm4(const IgemmArgs& args) noexcept;
/// Unpacks panels, a few at a time, and calls igemm of the 8-bit weights; false, with nothing done,
/// where a panel is too long.
bool igemm4_unpacked(const IgemmArgs& args, IgemmFn igemm) noexcept;
void row_sums(const uint8_t* const* rows, int64_t m, const int64_t* taps, int64_t num_taps,
              int64_t run_bytes, int32_t* sums) noexcept;
void pack(const uint8_t* b, int64_t ldb, int64_t k, int64_t n, uint8_t flip, int8_t* weights,
          int32_t* sums) noexcept;
void depthwise(const DepthwiseArgs& args) noexcept;
void depthwise_row(const DepthwiseRowArgs& args) noexcept;
void xor_copy(uint8_t* dst, const uint8_t* src, int64_t count, uint8_t mask) noexcept;
void quantize(uint8_t* dst, const float* src, int64_t count, const QuantizeArgs& args) noexcept;
using avx2::interleave;
void dequantize(float* dst, const uint8_t* src, int64_t count, const DequantizeArgs& args) noexcept;
void binary(uint8_t* dst, const uint8_t* a, int64_t step_a, const uint8_t* b, int64_t step_b,
            int64_t count, const BinaryArgs& args) noexcept;
void lookup(uint8_t* dst, const uint8_t* src, int64_t count, const uint8_t* table) noexcept;
void max_pool(const WindowArgs& args) noexcept;
void average_pool(const WindowArgs& args, const AverageArgs& average) noexcept;
void range(const float* src, int64_t count, float* lo, float* hi) noexcept;
void scale_row(float* dst, const int32_t* src, int64_t n, const ScaleRowArgs& args) noexcept;
void wgemm(const WgemmArgs& args) noexcept;
void half_gemm(const HalfGemmArgs& args) noexcept;
void attend(const AttendArgs& args) noexcept;
void activate(SmoothUnit unit, const float* x, float* y, int64_t count) noexcept;
void quantize_blocks(const QuantizeBlocksArgs& args) noexcept;
void block_gemm(const BlockGemmArgs& args) noexcept;
void block_rows(const BlockRowsArgs& args) noexcept;
void block_float(const BlockFloatArgs& args) noexcept;
inline constexpr int64_t kBlockTile = 6;

}  // namespace narrow::kernels::avx512_vnni
