// SPDX-License-Identifier: Apache-2.0
// File formats of language models: each names a block type for most weights and says which tensors
// get another, because they are few or matter more. The rules are those that files under these
// names follow everywhere (llama.cpp's llama-quantize, src/llama-quant.cpp), so that a Q4_K_M of
// one program has the size and the types of another's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/shape.h"
#include "narrow/quant/blocks/block_codec.h"

namespace narrow {

struct FileFormat {
  const char* name;     // "q4_k_m"
  BlockType type;       // of most weights
  uint32_t file_type;   // the number in `general.file_type`
  double about_bits;    // per weight of a large model, to choose by
  const char* purpose;  // a few words
};
/// Smallest first.
std::span<const FileFormat> file_formats();
/// Upper or lower case; null for an unknown name.
const FileFormat* find_file_format(std::string_view name);

/// Bits of a code, without scales.
int nominal_bits(BlockType type);

/// What the rules look at beside the names.
struct ModelTraits {
  std::string architecture;  // "llama"
  int64_t layers = 0;
  int64_t experts = 0;
  int64_t heads_per_key = 1;  // query heads that share a head of keys and values
  bool importance = false;    // the encoder will know which columns matter
};

struct MixtureTensor {
  std::string name;  // as in GGUF files: "blk.0.attn_q.weight"
  Dims dims;         // row-major
};

/// A user's rule: tensors whose names match get this type; none: they stay float as they are.
struct TensorTypeRule {
  std::string match;  // glob
  std::optional<BlockType> type;
};

struct TypeChoice {
  /// None: stays in the float type that it has.
  std::optional<BlockType> type;
  /// Why not the format's own type, in words; empty where it is.
  std::string reason;
  /// What was wanted where the rows are no whole blocks of it.
  std::optional<BlockType> wanted;
};

/// One choice for each tensor. Later rules win over earlier ones, and all over the format; a rule
/// that matches no tensor is an error (invalid_argument), and so is one that quantizes a tensor
/// with one dimension.
std::vector<TypeChoice> choose_types(const FileFormat& format, const ModelTraits& traits,
                                     std::span<const MixtureTensor> tensors,
                                     std::span<const TensorTypeRule> rules = {});

}  // namespace narrow
