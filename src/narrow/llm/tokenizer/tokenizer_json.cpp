// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/llm/tokenizer/json_parts.h"
#include "narrow/llm/tokenizer/sentencepiece_model.h"

namespace narrow::llm {
namespace {

using json_parts::Json;
using json_parts::parse;

const Json& part_of(const Json& json, const char* name) {
  static const Json kNull;
  const auto found = json.find(name);
  return found == json.end() ? kNull : *found;
}

/// "</s>" or {"content": "</s>"}; -1 where it is absent or no piece.
int32_t named_id(const TokenizerData& data, const Json& config, const char* name) {
  const Json& value = part_of(config, name);
  const Json& text = value.is_object() ? part_of(value, "content") : value;
  if (!text.is_string()) return -1;
  const auto found =
      std::find(data.pieces.begin(), data.pieces.end(), text.get_ref<const std::string&>());
  return found == data.pieces.end() ? -1 : static_cast<int32_t>(found - data.pieces.begin());
}

void add_eos(TokenizerData& data, int32_t id) {
  auto& eos = data.special.eos;
  if (std::find(eos.begin(), eos.end(), id) == eos.end()) eos.push_back(id);
}

/// A template, or a list of named ones of which "default" counts.
std::string template_of(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return {};
  for (const Json& entry : value) {
    if (!entry.is_object() || part_of(entry, "name") != "default") continue;
    const Json& text = part_of(entry, "template");
    if (text.is_string()) return text.get<std::string>();
  }
  return {};
}

}  // namespace

TokenizerData tokenizer_data_from_json(std::string_view text) {
  const Json json = parse(text, "tokenizer.json");
  TokenizerData data;
  json_parts::read_model(json_parts::member(json, "model", "tokenizer"), data);
  json_parts::read_added_tokens(part_of(json, "added_tokens"), data);
  json_parts::read_normalizer(part_of(json, "normalizer"), data.normalizer);
  json_parts::read_pre_tokenizer(part_of(json, "pre_tokenizer"), data.pre_tokenizer);
  json_parts::read_post_processor(part_of(json, "post_processor"), data);
  json_parts::read_decoder(part_of(json, "decoder"), data.decoder);
  data.join_with_spaces = part_of(json, "decoder").is_null();
  return data;
}

void apply_tokenizer_config(TokenizerData& data, std::string_view text) {
  const Json config = parse(text, "tokenizer_config.json");
  const auto set = [&](int32_t& id, const char* name) {
    const int32_t found = named_id(data, config, name);
    if (found >= 0) id = found;
  };
  set(data.special.bos, "bos_token");
  set(data.special.unk, "unk_token");
  set(data.special.pad, "pad_token");
  set(data.special.sep, "sep_token");
  set(data.special.cls, "cls_token");
  set(data.special.mask, "mask_token");
  if (const int32_t eos = named_id(data, config, "eos_token"); eos >= 0) add_eos(data, eos);
  if (std::string t = template_of(part_of(config, "chat_template")); !t.empty()) {
    data.chat_template = std::move(t);
  }
}

void apply_generation_config(TokenizerData& data, std::string_view text) {
  const Json config = parse(text, "generation_config.json");
  const Json& eos = part_of(config, "eos_token_id");
  if (eos.is_number_integer()) add_eos(data, json_parts::id_of(eos, "eos_token_id"));
  if (!eos.is_array()) return;
  for (const Json& id : eos) add_eos(data, json_parts::id_of(id, "eos_token_id"));
}

TokenizerData read_tokenizer(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  const auto read_one = [](const fs::path& file) {
    try {
      if (file.extension() == ".model") {
        return tokenizer_data_from_sentencepiece(MappedFile::open(file)->text());
      }
      return tokenizer_data_from_json(read_text(file));
    } catch (Error& e) {
      e.add_context(file.string());
      throw;
    }
  };
  if (!fs::is_directory(path)) return read_one(path);
  const bool json = fs::exists(path / "tokenizer.json");
  if (!json && !fs::exists(path / "tokenizer.model")) {
    throw Error(ErrorCode::not_found,
                fmt::format("{}: no tokenizer.json and no tokenizer.model", path.string()));
  }
  TokenizerData data = read_one(path / (json ? "tokenizer.json" : "tokenizer.model"));
  const auto with = [&](const char* name, auto&& use) {
    if (!fs::exists(path / name)) return;
    try {
      use(read_text(path / name));
    } catch (Error& e) {
      e.add_context((path / name).string());
      throw;
    }
  };
  with("tokenizer_config.json", [&](const std::string& t) { apply_tokenizer_config(data, t); });
  with("generation_config.json", [&](const std::string& t) { apply_generation_config(data, t); });
  with("chat_template.jinja", [&](const std::string& t) { data.chat_template = t; });
  return data;
}

}  // namespace narrow::llm
