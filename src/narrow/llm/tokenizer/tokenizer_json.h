// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, the format of Hugging Face's `tokenizers`, and the files that lie beside it: read
// them, and write them for tokenizers that came from elsewhere.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm {

/// Throws corrupt_data, or unsupported with the name of the part that is not known.
TokenizerData tokenizer_data_from_json(std::string_view text);

/// Adds what tokenizer_config.json says: bos, eos, unk, pad, sep, cls, mask, the chat template.
void apply_tokenizer_config(TokenizerData& data, std::string_view text);
/// Adds the ids of generation_config.json's eos_token_id to those that end a generation.
void apply_generation_config(TokenizerData& data, std::string_view text);

/// Reads a tokenizer.json, a SentencePiece .model, or the folder of a model: tokenizer.json (or
/// else tokenizer.model) with tokenizer_config.json, chat_template.jinja and generation_config.json
/// where they exist. Throws not_found where there is no tokenizer.
TokenizerData read_tokenizer(const std::filesystem::path& path);

/// tokenizer.json of what a GGUF file or a SentencePiece model says; both read back give the same
/// ids. Throws unsupported for what neither of them can be.
std::string tokenizer_json(const TokenizerData& data);
/// tokenizer_config.json to go with it: special tokens and the chat template.
std::string tokenizer_config_json(const TokenizerData& data, int64_t context);

}  // namespace narrow::llm
