// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/hf_files.h"

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/llm/tokenizer/json_parts.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"

namespace narrow::llm {
namespace {

namespace fs = std::filesystem;
using json_parts::Json;

constexpr HfFile kFiles[] = {
    {"config.json"},
    {"tokenizer.json"},
    {"tokenizer_config.json"},
    {"special_tokens_map.json", true},
    {"added_tokens.json", true},
    {"vocab.json", true},
    {"vocab.txt", true},
    {"merges.txt", true},
    {"generation_config.json"},
    {"chat_template.jinja"},
    {"modules.json"},
    {"sentence_bert_config.json"},
    {"config_sentence_transformers.json"},
    {"1_Pooling/config.json"},
};

std::string text_of(const Json& json) {
  return json.dump(2) + "\n";
}

/// The model's own config.json, but for the type of its weights.
std::string own_config(const std::string& text, std::string_view dtype) {
  Json json = json_parts::parse(text, "config.json");
  // Version 5 of transformers calls it dtype.
  json[json.contains("dtype") ? "dtype" : "torch_dtype"] = dtype;
  return text_of(json);
}

bool nearly_equal(const std::vector<float>& a, const std::vector<float>& b) {
  constexpr float kRounding = 1e-5F;  // other programs compute them in another order
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](float x, float y) { return std::abs(x - y) <= kRounding * std::abs(y); });
}

/// GGUF keeps divisors of frequencies instead of the numbers that llama 3 makes them of. Most
/// models have these, over one of few lengths.
ModelConfig with_rope_formula(ModelConfig c) {
  if (c.rope_divisors.empty()) return c;
  ModelConfig tried = c;
  tried.rope_scaling = RopeScaling::llama3;
  tried.rope_low_freq_factor = 1;
  tried.rope_high_freq_factor = 4;
  // The slowest frequencies are divided by the factor itself.
  tried.rope_factor = static_cast<double>(c.rope_divisors.back());
  for (int64_t length = 32; length <= std::max<int64_t>(c.context, 32); length *= 2) {
    tried.rope_original_context = length;
    tried.rope_divisors = llama3_rope_divisors(tried);
    if (nearly_equal(tried.rope_divisors, c.rope_divisors)) return tried;
  }
  return c;
}

std::string generation_config(const ModelConfig& c, const SpecialIds* special) {
  Json json = Json::object();
  const int32_t bos = special != nullptr && special->bos >= 0 ? special->bos : c.bos;
  const int32_t pad = special != nullptr && special->pad >= 0 ? special->pad : c.pad;
  const std::vector<int32_t>& eos =
      special != nullptr && !special->eos.empty() ? special->eos : c.eos;
  if (bos >= 0) json["bos_token_id"] = bos;
  if (pad >= 0) json["pad_token_id"] = pad;
  if (eos.size() == 1) json["eos_token_id"] = eos.front();
  if (eos.size() > 1) json["eos_token_id"] = eos;
  return text_of(json);
}

/// How sentence-transformers is told to make one vector of a text's.
std::string pooling_config(const ModelConfig& c) {
  return text_of({{"word_embedding_dimension", c.hidden_size},
                  {"pooling_mode_cls_token", c.pooling == Pooling::cls},
                  {"pooling_mode_mean_tokens", c.pooling == Pooling::mean},
                  {"pooling_mode_max_tokens", false},
                  {"pooling_mode_mean_sqrt_len_tokens", false},
                  {"pooling_mode_lasttoken", c.pooling == Pooling::last}});
}

std::map<std::string, std::string> written_files(const Checkpoint& checkpoint,
                                                 std::string_view dtype) {
  std::map<std::string, std::string> files;
  const ModelConfig c = with_rope_formula(checkpoint.config());
  files["config.json"] = hf_config_json(c, dtype);
  if (checkpoint.has_tokenizer()) {
    const TokenizerData data = checkpoint.tokenizer_data();
    files["tokenizer.json"] = tokenizer_json(data);
    files["tokenizer_config.json"] = tokenizer_config_json(data, c.context);
    if (c.causal) files["generation_config.json"] = generation_config(c, &data.special);
  } else if (c.causal) {
    files["generation_config.json"] = generation_config(c, nullptr);
  }
  if (c.pooling != Pooling::none) {
    files["1_Pooling/config.json"] = pooling_config(c);
    files["modules.json"] =
        text_of(Json::array({{{"idx", 0},
                              {"name", "0"},
                              {"path", ""},
                              {"type", "sentence_transformers.models.Transformer"}},
                             {{"idx", 1},
                              {"name", "1"},
                              {"path", "1_Pooling"},
                              {"type", "sentence_transformers.models.Pooling"}}}));
  }
  return files;
}

}  // namespace

std::span<const HfFile> hf_file_table() {
  return kFiles;
}

std::map<std::string, std::string> hf_files(const Checkpoint& checkpoint, std::string_view dtype) {
  if (checkpoint.folder().empty()) return written_files(checkpoint, dtype);
  std::map<std::string, std::string> files;
  const fs::path& folder = checkpoint.folder();
  for (const HfFile& file : kFiles) {
    if (fs::is_regular_file(folder / file.name)) files[file.name] = read_text(folder / file.name);
  }
  files["config.json"] = checkpoint.is_reshaped() ? hf_config_json(checkpoint.config(), dtype)
                                                  : own_config(files["config.json"], dtype);
  // A SentencePiece model alone: most programs want the other form.
  if (files.count("tokenizer.json") == 0 && checkpoint.has_tokenizer()) {
    files["tokenizer.json"] = tokenizer_json(checkpoint.tokenizer_data());
  }
  return files;
}

}  // namespace narrow::llm
