// SPDX-License-Identifier: Apache-2.0
// What sentence-transformers' files beside a Hugging Face model say of its embeddings:
// modules.json, the config.json of the pooling that it names, sentence_bert_config.json and the
// default prompt of config_sentence_transformers.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "narrow/llm/config.h"

namespace narrow::llm {

struct SentenceSettings {
  /// Nothing where the folder has no modules.json.
  std::optional<Pooling> pooling;
  int64_t max_tokens =
      0;               // of a text, special ones included; 0: as many as the model has positions
  std::string prompt;  // stands in front of every text
};

/// The text of a file of the model's folder by its path there, or nothing.
using HfTexts = std::function<std::optional<std::string>(const std::string& path)>;
HfTexts texts_in_folder(const std::filesystem::path& folder);

/// Throws unsupported for modules behind the pooling that change vectors (Dense, ...), for poolings
/// other than mean, cls and the last token, and for prompts that pooling leaves out; corrupt_data.
SentenceSettings read_sentence_settings(const HfTexts& texts);

}  // namespace narrow::llm
