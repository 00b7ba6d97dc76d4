// SPDX-License-Identifier: Apache-2.0
// Kernels compiled for AVX2 with F16C and FMA.
#pragma once

#include "narrow/kernels/kernel_types.h"

namespace narrow::kernels::avx2 {

void igemm(const IgemmArgs& args) noexcept;
void igemm4(const IgemmArgs& args) noexcept;
void row_sums(const uint8_t* const* rows, int64_t m, const int64_t* taps, int64_t num_taps,
              int64_t run_bytes, int32_t* sums) noexcept;
void pack(const uint8_t* b, int64_t ldb, int64_t k, int64_t n, uint8_t flip, int8_t* weights,
          int32_t* sums) noexcept;
void depthwise(const DepthwiseArgs& args) noexcept;
void depthwise_row(const DepthwiseRowArgs& args) noexcept;
void xor_copy(uint8_t* dst, const uint8_t* src, int64_t count, uint8_t mask) noexcept;
void quantize(uint8_t* dst, const float* src, int64_t count, const QuantizeArgs& args) noexcept;
void interleave(uint8_t* dst, const uint8_t* src, int64_t pitch, int64_t planes,
                int64_t pixels) noexcept;
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
inline constexpr int64_t kBlockTile = 4;

/// Channels from a multiple of 16 on.
void depthwise_from(const DepthwiseArgs& args, int64_t channel) noexcept;
void depthwise_row_from(const DepthwiseRowArgs& args, int64_t channel) noexcept;

/// The epilogue of a tile of `rows` rows and one panel from memory, sums [rows][16] without their
/// corrections: for instruction sets that differ in the products only.
void store_sums(const IgemmArgs& args, int64_t row, int64_t rows, int64_t column,
                const int32_t* sums) noexcept;

}  // namespace narrow::kernels::avx2
