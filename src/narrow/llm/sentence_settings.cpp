// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/sentence_settings.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/llm/tokenizer/json_parts.h"

namespace narrow::llm {

namespace fs = std::filesystem;

namespace {

using json_parts::Json;

[[noreturn]] void unsupported(const std::string& what) {
  throw Error(ErrorCode::unsupported, what,
              "embeddings are known with mean, cls and last-token pooling");
}

/// The file as an object, or an empty one where there is none.
Json object_of(const HfTexts& texts, const std::string& path) {
  const std::optional<std::string> text = texts(path);
  return text ? json_parts::parse(*text, path) : Json::object();
}

/// modules.json is a list, which json_parts::parse does not take.
Json modules_of(const std::string& text) {
  Json list;
  try {
    list = Json::parse(text);
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::corrupt_data, fmt::format("modules.json: {}", e.what()));
  }
  if (!list.is_array()) throw Error(ErrorCode::corrupt_data, "modules.json: is no list");
  return list;
}

/// One of the older files' flags, or the newer files' word.
Pooling pooling_of(const Json& config) {
  struct Row {
    const char* flag;
    const char* word;
    Pooling pooling;  // none: not known
  };
  static constexpr Row kRows[] = {
      {"pooling_mode_mean_tokens", "mean", Pooling::mean},
      {"pooling_mode_cls_token", "cls", Pooling::cls},
      {"pooling_mode_lasttoken", "lasttoken", Pooling::last},
      {"pooling_mode_max_tokens", "max", Pooling::none},
      {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::none},
      {"pooling_mode_weightedmean_tokens", "weightedmean", Pooling::none},
  };
  constexpr const char* kWhere = "pooling";
  const std::string word = json_parts::text_or(config, "pooling_mode", "", kWhere);
  const Row* chosen = nullptr;
  for (const Row& row : kRows) {
    const bool on =
        word.empty() ? json_parts::bool_or(config, row.flag, false, kWhere) : word == row.word;
    if (!on) continue;
    if (chosen) unsupported("the model joins several poolings to one vector");
    chosen = &row;
  }
  if (!chosen) unsupported(fmt::format("the model's pooling '{}' is not known", word));
  if (chosen->pooling == Pooling::none) {
    unsupported(fmt::format("the model's pooling is {}", chosen->word));
  }
  return chosen->pooling;
}

/// A file of a module, whose folder is inside the model's.
std::string file_of(const std::string& module, const char* name) {
  const fs::path path(module);
  if (path.is_absolute() || std::find(path.begin(), path.end(), "..") != path.end()) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("modules.json: path '{}' is not in the model's folder", module));
  }
  return (path / name).string();
}

int64_t max_tokens_of(const Json& config) {
  const auto found = config.find("max_seq_length");
  if (found == config.end() || found->is_null()) return 0;
  if (!found->is_number_integer() || found->get<int64_t>() < 1) {
    throw Error(ErrorCode::corrupt_data,
                "sentence_bert_config.json: max_seq_length is no number of tokens");
  }
  return found->get<int64_t>();
}

std::string prompt_of(const Json& config) {
  const auto text = [](const Json& object, const std::string& name) {
    return json_parts::text_or(object, name.c_str(), "", "config_sentence_transformers.json");
  };
  const std::string name = text(config, "default_prompt_name");
  const auto prompts = config.find("prompts");
  if (name.empty() || prompts == config.end() || !prompts->is_object()) return {};
  return text(*prompts, name);
}

}  // namespace

HfTexts texts_in_folder(const fs::path& folder) {
  return [folder](const std::string& path) -> std::optional<std::string> {
    if (!fs::exists(folder / path)) return {};
    return read_text(folder / path);
  };
}

SentenceSettings read_sentence_settings(const HfTexts& texts) {
  SentenceSettings settings;
  const std::optional<std::string> modules = texts("modules.json");
  if (!modules) return settings;
  settings.prompt = prompt_of(object_of(texts, "config_sentence_transformers.json"));
  for (const Json& module : modules_of(*modules)) {
    const std::string type = json_parts::text_of(module, "type", "modules.json");
    const std::string path = json_parts::text_or(module, "path", "", "modules.json");
    const std::string_view kind = std::string_view(type).substr(type.rfind('.') + 1);
    if (kind == "Transformer") {
      settings.max_tokens =
          max_tokens_of(object_of(texts, file_of(path, "sentence_bert_config.json")));
    } else if (kind == "Pooling") {
      const Json config = object_of(texts, file_of(path, "config.json"));
      settings.pooling = pooling_of(config);
      if (!settings.prompt.empty() && !json_parts::bool_or(config, "include_prompt", true, kind)) {
        unsupported("the model's pooling leaves the default prompt out");
      }
    } else if (kind != "Normalize") {
      unsupported(fmt::format("modules.json: there is a module {}", type));
    }
  }
  return settings;
}

}  // namespace narrow::llm
