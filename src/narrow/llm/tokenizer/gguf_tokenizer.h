// SPDX-License-Identifier: Apache-2.0
// The tokenizer that the metadata of a GGUF file describes. Reading the file is someone else's
// work: this takes the values of its tokenizer.* keys.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm {

/// The keys are tokenizer.ggml.<name of the member>, unless said otherwise. What the file does not
/// have stays empty; then the defaults of its model count.
struct TokenizerMetadata {
  std::string model;  // llama | gpt2 | bert | t5
  std::string pre;
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> token_type;
  std::vector<std::string> merges;
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> eos_token_id;
  std::optional<int64_t> eot_token_id;
  std::optional<int64_t> unknown_token_id;
  std::optional<int64_t> separator_token_id;  // the key is "seperator_token_id"
  std::optional<int64_t> padding_token_id;
  std::optional<int64_t> cls_token_id;
  std::optional<int64_t> mask_token_id;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> add_sep_token;
  std::optional<bool> add_space_prefix;
  std::optional<bool> remove_extra_whitespaces;
  std::string precompiled_charsmap;  // bytes
  std::string chat_template;         // tokenizer.chat_template
};

/// Throws corrupt_data, or unsupported for a model or a pre-tokenizer that is not known; the
/// message lists the known ones.
TokenizerData tokenizer_data_from_gguf(const TokenizerMetadata& metadata);

/// How byte-level models of GGUF cut text, by the name in tokenizer.ggml.pre.
struct PreTokenizerRow {
  std::string_view name;
  /// Applied one after another; each cuts what the others left, matches and gaps become words.
  std::vector<std::string_view> expressions;
  bool ignore_merges = false;
  bool add_bos = false;
};
const std::vector<PreTokenizerRow>& pre_tokenizer_rows();

}  // namespace narrow::llm
