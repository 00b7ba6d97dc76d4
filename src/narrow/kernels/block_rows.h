// SPDX-License-Identifier: Apache-2.0
// narrow.BlockGemm with weights where the file has them: few rows take them apart as they go, many
// rows pack some panels at a time into scratch memory. The same results as those of packed weights,
// bit for bit; slower, but nothing is held beside the file.
#pragma once

#include <cstdint>
#include <span>

#include "narrow/kernels/block_gemm.h"

namespace narrow::kernels {

/// `layout` is what layout_blocks() says of w.
size_t stored_gemm_scratch_bytes(const KernelSet& kernels, const PackedBlocks& layout, int64_t m);

/// y [m, n] from x [m, k], both row-major; scratch aligned to 64 bytes.
void run_stored_gemm(const KernelSet& kernels, const PackedBlocks& layout,
                     std::span<const std::byte> w, const float* x, int64_t m, float* y,
                     std::span<std::byte> scratch);

}  // namespace narrow::kernels
