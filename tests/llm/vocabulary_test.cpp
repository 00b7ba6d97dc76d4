// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/vocabulary.h"

#include <gtest/gtest.h>

#include "llm/tiny_model.h"
#include "llm/tokenizer/golden.h"
#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/sentencepiece_model.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* file;
  const char* model;
  const char* pre;
};
constexpr Case kCases[] = {
    {"bytes_gpt2.json", "gpt2", "gpt-2"},          {"bytes_llama3.json", "gpt2", "llama3"},
    {"bytes_qwen2.json", "gpt2", "qwen2"},         {"spm_bpe.model", "llama", "default"},
    {"characters_llama.json", "llama", "default"}, {"wordpiece_bert.json", "bert", "jina-v2-en"},
};

TokenizerData data_of(const std::string& file) {
  const std::string text = read_text(golden(file));
  if (file.ends_with(".model")) return tokenizer_data_from_sentencepiece(text);
  return tokenizer_data_from_json(text);
}

bool has_long_word(std::string_view text) {
  size_t length = 0;
  for (const char c : text) {
    length = c == ' ' || c == '\n' ? 0 : length + 1;
    if (length > 60) return true;
  }
  return false;
}

/// Through the keys of a file and back.
TokenizerMetadata written_and_read(const TokenizerMetadata& vocabulary) {
  testing::TemporaryFolder folder;
  GgufMetadata metadata;
  append_vocabulary(vocabulary, metadata);
  GgufWriter(folder / "v.gguf", metadata, {}).commit();
  return vocabulary_of(GgufFile::open(folder / "v.gguf"));
}

TEST(VocabularyTest, CutsTextsAsTheTokenizerDoes) {
  const auto texts = golden_json("texts.json").get<std::vector<std::string>>();
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.file);
    const TokenizerData data = data_of(c.file);
    const int64_t size = static_cast<int64_t>(data.pieces.size()) + 3;
    const TokenizerMetadata made = written_and_read(make_vocabulary(data, size));
    EXPECT_EQ(made.model, c.model) << c.file;
    EXPECT_EQ(made.pre, c.pre) << c.file;
    ASSERT_EQ(static_cast<int64_t>(made.tokens.size()), size);
    EXPECT_EQ(made.token_type.back(), static_cast<int32_t>(PieceType::unused));
    const Tokenizer original(data);
    const Tokenizer gguf(tokenizer_data_from_gguf(made));
    for (const std::string& text : texts) {
      // GGUF has no tokens that are whole words only, no longest word, and no NFC: texts are
      // normalized here.
      const bool known = (std::string(c.file) == "bytes_gpt2.json" && text.starts_with("xTOKy")) ||
                         (std::string(c.model) == "bert" && has_long_word(text));
      const std::string normal = normal_form(text, NormalForm::nfc);
      const bool same = original.encode(normal) == gguf.encode(normal);
      if (!same && !known) ADD_FAILURE() << c.file << ": " << text;
    }
  }
}

TEST(VocabularyTest, RefusesWhatGgufCannotSay) {
  const auto code = [](const TokenizerData& data, int64_t size) {
    try {
      (void)make_vocabulary(data, size);
    } catch (const Error& e) {
      return e.code();
    }
    return ErrorCode::internal;
  };
  EXPECT_EQ(code(data_of("unigram.json"), 100000), ErrorCode::unsupported);
  EXPECT_EQ(code(data_of("bytes_o200k.json"), 100000), ErrorCode::unsupported);
  EXPECT_EQ(code(data_of("bytes_gpt2.json"), 10), ErrorCode::corrupt_data);
  TokenizerData lower = data_of("bytes_gpt2.json");
  lower.normalizer.push_back({NormalizerStep::Kind::lowercase});
  EXPECT_EQ(code(lower, 100000), ErrorCode::unsupported);
  TokenizerData spaces = data_of("bytes_gpt2.json");
  spaces.pre_tokenizer.insert(spaces.pre_tokenizer.begin(),
                              {PreTokenizerStep::Kind::whitespace_split});
  EXPECT_EQ(code(spaces, 100000), ErrorCode::unsupported);
}

TEST(VocabularyTest, Llama2EqualsThePublishedVocabulary) {
  const fs::path models = testing::assets();
  if (!fs::exists(models / "llama2-tokenizer")) GTEST_SKIP() << "NARROW_ASSETS is absent";
  const TokenizerMetadata made =
      make_vocabulary(read_tokenizer(models / "llama2-tokenizer" / "tokenizer.model"), 32000);
  const TokenizerMetadata published =
      vocabulary_of(GgufFile::open(models / "gguf-vocab" / "ggml-vocab-llama-spm.gguf"));
  EXPECT_EQ(made.model, published.model);
  EXPECT_EQ(made.pre, published.pre);
  EXPECT_EQ(made.tokens, published.tokens);
  EXPECT_EQ(made.scores, published.scores);
  EXPECT_EQ(made.token_type, published.token_type);
  EXPECT_EQ(made.bos_token_id, published.bos_token_id);
  EXPECT_EQ(made.eos_token_id, published.eos_token_id);
  EXPECT_EQ(made.add_bos_token, published.add_bos_token);
}

}  // namespace
}  // namespace narrow::llm
