// SPDX-License-Identifier: Apache-2.0
// Tokenizers as models carry them, wherever they lie: in a folder, a file of their own, or the
// metadata of a GGUF file.
#pragma once

#include <filesystem>

#include "narrow/formats/gguf/gguf.h"
#include "narrow/llm/tokenizer/gguf_tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm {

/// False also where the file says that it has none (tokenizer.ggml.model "none" or "no_vocab").
bool has_tokenizer(const GgufFile& file);

/// The tokenizer.* keys. Throws not_found where there is no tokenizer, and corrupt_data naming a
/// key of another kind than it has to be.
TokenizerMetadata tokenizer_metadata(const GgufFile& file);
/// Throws as tokenizer_metadata and tokenizer_data_from_gguf(TokenizerMetadata) do.
TokenizerData tokenizer_data_from_gguf(const GgufFile& file);

/// A GGUF file (known by its first bytes), or what read_tokenizer takes: the folder of a model, a
/// tokenizer.json, a SentencePiece .model.
TokenizerData read_model_tokenizer(const std::filesystem::path& path);

}  // namespace narrow::llm
