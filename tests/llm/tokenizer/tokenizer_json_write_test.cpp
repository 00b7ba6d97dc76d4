// SPDX-License-Identifier: Apache-2.0
// tokenizer.json as it is written: what is read back cuts texts as what it was written from.
#include <gtest/gtest.h>

#include <algorithm>

#include "llm/tokenizer/golden.h"
#include "narrow/core/error.h"
#include "narrow/formats/gguf/gguf.h"
#include "narrow/llm/tokenizer/sentencepiece_model.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/vocabulary.h"

namespace narrow::llm {
namespace {

TokenizerData data_of(const std::string& file) {
  const std::string text = read_text(golden(file));
  if (file.ends_with(".model")) return tokenizer_data_from_sentencepiece(text);
  return tokenizer_data_from_json(text);
}

/// As a GGUF file would give it.
TokenizerData through_gguf(const TokenizerData& data) {
  return tokenizer_data_from_gguf(
      make_vocabulary(data, static_cast<int64_t>(data.pieces.size()) + 3));
}

TokenizerData through_json(const TokenizerData& data) {
  TokenizerData read = tokenizer_data_from_json(tokenizer_json(data));
  apply_tokenizer_config(read, tokenizer_config_json(data, 512));
  return read;
}

bool has_defined(const TokenizerData& data, const std::vector<int32_t>& ids) {
  const bool added = std::any_of(data.added.begin(), data.added.end(),
                                 [](const AddedToken& a) { return !a.special; });
  return !added && std::any_of(ids.begin(), ids.end(), [&](int32_t id) {
    const auto i = static_cast<size_t>(id);
    return i < data.types.size() && data.types[i] == PieceType::user_defined;
  });
}

void expect_same_ids(const TokenizerData& data, const std::string& what) {
  const Tokenizer original(data);
  const Tokenizer written(through_json(data));
  for (const std::string& text : golden_json("texts.json").get<std::vector<std::string>>()) {
    const auto wanted = original.encode(text);
    // SentencePiece knows its own pieces inside of a stretch of text, tokenizer.json between two.
    if (has_defined(data, wanted)) continue;
    const auto got = written.encode(text);
    EXPECT_EQ(got, wanted) << what << ": " << text;
    // tokenizer.json has no words for what is unknown.
    const bool known = std::find(wanted.begin(), wanted.end(), data.special.unk) == wanted.end();
    if (known) EXPECT_EQ(written.decode(got), original.decode(wanted)) << what << ": " << text;
    const EncodeOptions parse{.add_special = false, .parse_special = true};
    EXPECT_EQ(written.encode(text + "</s>" + text, parse),
              original.encode(text + "</s>" + text, parse))
        << what << ": " << text;
  }
}

TEST(TokenizerJsonWrite, SentencePieceModels) {
  for (const char* file : {"spm_bpe.model", "spm_bpe_plain.model"}) {
    expect_same_ids(data_of(file), file);
  }
}

TEST(TokenizerJsonWrite, Vocabularies) {
  for (const char* file : {"bytes_gpt2.json", "bytes_llama3.json", "bytes_qwen2.json",
                           "spm_bpe.model", "characters_llama.json"}) {
    expect_same_ids(through_gguf(data_of(file)), file);
  }
}

TEST(TokenizerJsonWrite, WordPieceOfGgufMarksContinuationsAgain) {
  const TokenizerData original = data_of("wordpiece_bert.json");
  const TokenizerData read = through_json(through_gguf(original));
  EXPECT_EQ(read.continuing_prefix, "##");
  for (size_t id = 0; id < original.pieces.size(); ++id) {
    EXPECT_EQ(read.pieces[id], original.pieces[id]);
  }
  EXPECT_EQ(read.prefix_ids, original.prefix_ids);
  EXPECT_EQ(read.suffix_ids, original.suffix_ids);
}

TEST(TokenizerJsonWrite, ConfigNamesSpecialTokensAndTemplate) {
  TokenizerData data = through_gguf(data_of("spm_bpe.model"));
  data.chat_template = "{{ messages }}";
  const TokenizerData read = through_json(data);
  EXPECT_EQ(read.special.bos, data.special.bos);
  EXPECT_EQ(read.special.eos, data.special.eos);
  EXPECT_EQ(read.chat_template, data.chat_template);
  EXPECT_EQ(read.added.size(), data.added.size());
  EXPECT_EQ(read.prefix_ids, data.prefix_ids);
}

TEST(TokenizerJsonWrite, RefusesWhatItCannotSay) {
  const auto code = [](const TokenizerData& data) {
    try {
      (void)tokenizer_json(data);
    } catch (const Error& e) {
      return e.code();
    }
    return ErrorCode::internal;
  };
  EXPECT_EQ(code(data_of("characters_metaspace.json")), ErrorCode::unsupported);
  TokenizerData two = through_gguf(data_of("wordpiece_bert.json"));
  two.pieces[two.pieces.size() - 1] = "same";
  two.pieces[two.pieces.size() - 2] = two.word_prefix + "##same";
  two.types.clear();
  EXPECT_EQ(code(two), ErrorCode::unsupported);
  TokenizerData bytes = through_gguf(data_of("bytes_gpt2.json"));
  bytes.pieces[0] = "\xFF";
  EXPECT_EQ(code(bytes), ErrorCode::unsupported);
}

}  // namespace
}  // namespace narrow::llm
