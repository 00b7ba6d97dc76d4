// SPDX-License-Identifier: Apache-2.0
// DynamicQuantize and BlockGemm of graph/lowered_ops.h written out plainly: the specification that
// every kernel is compared with.
#pragma once

#include <cstdint>
#include <span>

#include "narrow/quant/blocks/block_codec.h"

namespace narrow::kernels::ref {

/// One block of DynamicQuantize: writes the codes, returns the scale.
float quantize_block(std::span<const float> x, std::span<int8_t> codes);

/// y [m, n] = x [m, k] times the transpose of w [n, k], stored in blocks of `type`.
void block_gemm(BlockType type, std::span<const std::byte> w, std::span<const float> x, int64_t m,
                int64_t n, int64_t k, std::span<float> y);

}  // namespace narrow::kernels::ref
