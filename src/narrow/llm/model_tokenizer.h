// SPDX-License-Identifier: Apache-2.0
// Tokenizers as models carry them, wherever they lie: in a folder, a file of their own, or the
// metadata of a GGUF file.
#pragma once

#include <filesystem>

#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm {

/// A GGUF file (known by its first bytes), or what read_tokenizer takes: the folder of a model, a
/// tokenizer.json, a SentencePiece .model. Throws as vocabulary_of, tokenizer_data_from_gguf and
/// read_tokenizer do, naming the path.
TokenizerData read_model_tokenizer(const std::filesystem::path& path);

}  // namespace narrow::llm
