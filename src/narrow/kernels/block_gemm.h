// SPDX-License-Identifier: Apache-2.0
// Products of float activations, quantized in blocks of 32, with weights in blocks as files store
// them (narrow.BlockGemm). Weights are put in panels of 16 rows once: the same bits in another
// order, 0 to 4 % more bytes than the file has.
#pragma once

#include <cstdint>
#include <span>

#include "narrow/core/tensor.h"
#include "narrow/kernels/kernel_set.h"
#include "narrow/quant/blocks/block_parts.h"

namespace narrow::kernels {

struct PackedBlocks {
  BlockKernel kernel = BlockKernel::q8_0;
  BlockForm form{};
  int64_t n = 0;
  int64_t k = 0;
  int64_t panel_bytes = 0;
  Tensor weights;  // layout of kernel_types.h
};

/// Why weights of this type have no panels; empty if they have.
std::string refuse_blocks(BlockType type);

/// Bytes of packed weights. For a type that has panels.
size_t packed_block_bytes(BlockType type, int64_t n, int64_t k);

/// w [n][row_bytes(type, k)]; what of it lies in a mapped file is released as it is packed. Throws
/// invalid_argument for a type that refuse_blocks() refuses and for sizes that do not match.
PackedBlocks pack_blocks(BlockType type, std::span<const std::byte> w, int64_t n, int64_t k);

/// The layout of packed weights without memory for them; throws as pack_blocks() does.
PackedBlocks layout_blocks(BlockType type, std::span<const std::byte> w, int64_t n, int64_t k);
/// Panels [begin, end) of rows w [n][row_bytes(type, k)], by the calling thread.
void pack_panels(const PackedBlocks& layout, std::span<const std::byte> w, int64_t begin,
                 int64_t end, uint8_t* panels);

size_t block_gemm_scratch_bytes(const KernelSet& kernels, const PackedBlocks& w, int64_t m);

/// y [m, n] from x [m, k], both row-major; scratch aligned to 64 bytes.
void run_block_gemm(const KernelSet& kernels, const PackedBlocks& w, const float* x, int64_t m,
                    float* y, std::span<std::byte> scratch);

/// The two halves of it, for weights that are packed piece by piece: the activations into scratch
/// (block_gemm_scratch_bytes() of it), and columns [16 first, ..) of y from `count` panels.
BlockRows quantize_rows(const KernelSet& kernels, const PackedBlocks& w, const float* x, int64_t m,
                        std::span<std::byte> scratch);
void multiply_panels(const KernelSet& kernels, const PackedBlocks& w, const uint8_t* panels,
                     int64_t first, int64_t count, const BlockRows& rows, int64_t m, float* y);

/// The same product with x as it is, in float (narrow.WBlockGemm).
void run_block_float(const KernelSet& kernels, const PackedBlocks& w, const float* x, int64_t m,
                     float* y);

}  // namespace narrow::kernels
