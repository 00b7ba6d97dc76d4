// SPDX-License-Identifier: Apache-2.0
// Tensor types of GGUF files: their numbers, names and sizes. Most are block codecs
// (quant/blocks), some plain element types; the rest are known by size, so that files that have
// them can be listed and copied.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "narrow/core/dtype.h"
#include "narrow/quant/blocks/block_codec.h"

namespace narrow {

struct GgufTensorType {
  uint32_t number;
  const char* name;  // "Q4_K"
  int block_values;
  int block_bytes;
  std::optional<BlockType> codec;
  DType dtype;  // of a Tensor that holds it unchanged, or undefined
};

/// Null for a number that is not known.
const GgufTensorType* find_gguf_type(uint32_t number);
const GgufTensorType& gguf_type(BlockType type);
std::span<const GgufTensorType> gguf_types();

}  // namespace narrow
