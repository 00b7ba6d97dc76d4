// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/gguf_metadata_tokenizer.h"

#include <fmt/format.h>

#include <string>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"

namespace narrow::llm {
namespace {

/// Calls `use` with the value of a key, if it is there; errors name the key.
template <class Use>
void with(const GgufFile& file, const std::string& key, Use&& use) {
  const GgufValue* value = file.find_metadata(key);
  if (value == nullptr) return;
  try {
    use(*value);
  } catch (Error& e) {
    e.add_context(key);
    throw;
  }
}

void read(const GgufFile& file, const char* name, std::string& out) {
  with(file, name, [&](const GgufValue& v) { out = v.as_string(); });
}

void read(const GgufFile& file, const char* name, std::optional<int64_t>& out) {
  with(file, fmt::format("tokenizer.ggml.{}", name), [&](const GgufValue& v) { out = v.as_int(); });
}

void read(const GgufFile& file, const char* name, std::optional<bool>& out) {
  with(file, fmt::format("tokenizer.ggml.{}", name),
       [&](const GgufValue& v) { out = v.as_bool(); });
}

void read(const GgufFile& file, const char* name, std::vector<std::string>& out) {
  with(file, fmt::format("tokenizer.ggml.{}", name), [&](const GgufValue& v) {
    const auto texts = v.as_strings();
    out.assign(texts.begin(), texts.end());
  });
}

void read_types(const GgufFile& file, std::vector<int32_t>& out) {
  with(file, "tokenizer.ggml.token_type", [&](const GgufValue& v) {
    for (const int64_t type : v.as_ints()) {
      if (type < INT32_MIN || type > INT32_MAX) {
        throw Error(ErrorCode::corrupt_data, fmt::format("{} is no type of a token", type));
      }
      out.push_back(static_cast<int32_t>(type));
    }
  });
}

void read_charsmap(const GgufFile& file, std::string& out) {
  with(file, "tokenizer.ggml.precompiled_charsmap", [&](const GgufValue& v) {
    if (v.kind() != GgufKind::array ||
        (v.element_kind() != GgufKind::u8 && v.element_kind() != GgufKind::i8)) {
      throw Error(ErrorCode::corrupt_data, fmt::format("{} where bytes are wanted", v.describe()));
    }
    for (const int64_t byte : v.as_ints()) out.push_back(static_cast<char>(byte));
  });
}

bool is_gguf(const std::filesystem::path& path) {
  return std::filesystem::is_regular_file(path) &&
         MappedFile::open(path)->text().starts_with("GGUF");
}

}  // namespace

bool has_tokenizer(const GgufFile& file) {
  std::string model;
  read(file, "tokenizer.ggml.model", model);
  return !model.empty() && model != "none" && model != "no_vocab";
}

TokenizerMetadata tokenizer_metadata(const GgufFile& file) {
  if (!has_tokenizer(file)) {
    throw Error(ErrorCode::not_found, "the file has no tokenizer",
                "name the tokenizer.json or tokenizer.model that belongs to the model");
  }
  TokenizerMetadata m;
  read(file, "tokenizer.ggml.model", m.model);
  read(file, "tokenizer.ggml.pre", m.pre);
  read(file, "tokenizer.chat_template", m.chat_template);
  read(file, "tokens", m.tokens);
  read(file, "merges", m.merges);
  read_types(file, m.token_type);
  with(file, "tokenizer.ggml.scores", [&](const GgufValue& v) { m.scores = v.as_floats(); });
  read_charsmap(file, m.precompiled_charsmap);
  read(file, "bos_token_id", m.bos_token_id);
  read(file, "eos_token_id", m.eos_token_id);
  read(file, "eot_token_id", m.eot_token_id);
  read(file, "unknown_token_id", m.unknown_token_id);
  read(file, "seperator_token_id", m.separator_token_id);
  read(file, "padding_token_id", m.padding_token_id);
  read(file, "cls_token_id", m.cls_token_id);
  read(file, "mask_token_id", m.mask_token_id);
  read(file, "add_bos_token", m.add_bos_token);
  read(file, "add_eos_token", m.add_eos_token);
  read(file, "add_sep_token", m.add_sep_token);
  read(file, "add_space_prefix", m.add_space_prefix);
  read(file, "remove_extra_whitespaces", m.remove_extra_whitespaces);
  return m;
}

TokenizerData tokenizer_data_from_gguf(const GgufFile& file) {
  return tokenizer_data_from_gguf(tokenizer_metadata(file));
}

TokenizerData read_model_tokenizer(const std::filesystem::path& path) {
  if (!is_gguf(path)) return read_tokenizer(path);
  const GgufFile file = GgufFile::open(path);
  try {
    return tokenizer_data_from_gguf(file);
  } catch (Error& e) {
    e.add_context(path.string());
    throw;
  }
}

}  // namespace narrow::llm
