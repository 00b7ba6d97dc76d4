// SPDX-License-Identifier: Apache-2.0
// The table of byte-level pre-tokenizers by the names GGUF files use. The expressions are those of
// the models' own tokenizer.json files.
#include "narrow/llm/tokenizer/gguf_tokenizer.h"
#include "narrow/llm/tokenizer/word_patterns.h"

namespace narrow::llm {
namespace {

constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kPunctuationAndSigns = R"([\p{P}\$\+<=>\^~\|]+)";
constexpr std::string_view kFalconSigns = R"([\p{P}\$\+<=>\^~\|`]+)";
constexpr std::string_view kThreeDigits = "[0-9][0-9][0-9]";
constexpr std::string_view kBloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
constexpr std::string_view kDeepSeekCjk = "[一-龥ࠀ-一가-퟿]+";
constexpr std::string_view kDeepSeek3Cjk = "[一-龥぀-ゟ゠-ヿ]+";
constexpr std::string_view kDeepSeek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words whose capitals stand at their start.
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBailingMoe =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<PreTokenizerRow> make_rows() {
  std::vector<PreTokenizerRow> rows;
  const auto add = [&rows](std::initializer_list<std::string_view> names,
                           std::vector<std::string_view> expressions, bool ignore_merges = false,
                           bool add_bos = false) {
    for (const std::string_view n : names) rows.push_back({n, expressions, ignore_merges, add_bos});
  };
  add({"default"}, {kPunctuationAndSigns, kGpt2Pattern, R"(\p{N}+)", kThreeDigits});
  add({"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de",
       "jina-v2-code", "gigachat", "roberta-bpe", "mpt", "olmo", "jais", "trillion",
       "granite-docling"},
      {kGpt2Pattern});
  add({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
      {kLlama3Pattern}, true, true);
  add({"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, {kLlama3Pattern});
  add({"qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan", "grok-2"}, {kQwen2Pattern});
  add({"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"},
      {kDigit, kGpt2Pattern});
  add({"falcon"}, {kFalconSigns, kGpt2Pattern, kThreeDigits});
  add({"deepseek-coder"}, {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekCjk, kDigit});
  add({"deepseek-v3", "hunyuan-dense"}, {R"(\p{N}{1,3})", kDeepSeek3Cjk, kDeepSeek3});
  add({"poro-chat", "bloom", "gpt3-finnish"}, {kBloom});
  add({"viking"}, {kBloom, kDigit});
  add({"tekken"}, {kTekken}, true, true);
  add({"gpt-4o", "llama4"}, {kGpt4o});
  add({"bailingmoe"}, {kBailingMoe});
  add({"seed-coder"}, {kSeedCoder});
  return rows;
}

}  // namespace

const std::vector<PreTokenizerRow>& pre_tokenizer_rows() {
  static const std::vector<PreTokenizerRow> rows = make_rows();
  return rows;
}

}  // namespace narrow::llm
