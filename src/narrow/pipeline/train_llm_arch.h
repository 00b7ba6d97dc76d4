// SPDX-License-Identifier: Apache-2.0
// Language models to train from scratch.
//
//   llama(dim=256,layers=8,heads=8,kv_heads=4,ff=768,context=512)
//
// heads is dim / 64 at least 1, kv_heads as heads, ff 8/3 of dim in whole 32s, context 512 where
// they are left out; tied=0 gives the output a matrix of its own, theta=N another base of rope.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "narrow/llm/checkpoint.h"

namespace narrow {

/// Does the text begin like one of these?
bool is_language_arch(std::string_view arch);

/// With random weights: normal numbers of deviation 0.02, in what adds to the residual stream
/// divided by the root of twice the layers (Radford et al., Language Models are Unsupervised
/// Multitask Learners, 2019); norms of 1. The same for the same seed. The vocabulary is that of the
/// tokenizer: a model's folder, a .gguf file, a tokenizer.json or .model. Throws invalid_argument
/// naming the part that is wrong, and what reading the tokenizer throws.
llm::Checkpoint new_language_model(std::string_view arch, const std::filesystem::path& tokenizer,
                                   uint64_t seed);

}  // namespace narrow
