// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "llm/tokenizer/golden.h"
#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/sentencepiece_model.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

TokenizerMetadata small_llama() {
  TokenizerMetadata m;
  m.model = "llama";
  const auto add = [&m](const std::string& piece, float score, int32_t type) {
    m.tokens.push_back(piece);
    m.scores.push_back(score);
    m.token_type.push_back(type);
  };
  add("<unk>", 0, 2);
  add("<s>", 0, 3);
  add("</s>", 0, 3);
  for (int b = 0; b < 256; ++b) add(piece_of_byte(static_cast<uint8_t>(b)), 0, 6);
  add("\xE2\x96\x81", -5, 1);
  add("a", -6, 1);
  add("b", -7, 1);
  add("ab", -1, 1);
  add("\xE2\x96\x81"
      "a",
      -2, 1);
  add("<|im_end|>", 0, 3);
  add("<tool>", 0, 4);
  m.bos_token_id = 1;
  m.eos_token_id = 2;
  m.unknown_token_id = 0;
  return m;
}

TEST(GgufTokenizer, HigherScoresMergeFirstAndBytesFillIn) {
  const Tokenizer t(tokenizer_data_from_gguf(small_llama()));
  // ab (-1) wins over _a (-2); the dummy space stays alone.
  EXPECT_EQ(t.encode("ab a"), (std::vector<int32_t>{1, 259, 262, 263}));
  EXPECT_EQ(t.encode("\xC3\xA9", {.add_special = false}),
            (std::vector<int32_t>{259, 3 + 0xC3, 3 + 0xA9}));
  EXPECT_EQ(t.decode(t.encode("ab a")), "ab a");
  EXPECT_EQ(t.decode(t.encode(" ab")), " ab");
}

TEST(GgufTokenizer, SpecialTokensAreParsedOnlyOnRequest) {
  const Tokenizer t(tokenizer_data_from_gguf(small_llama()));
  const EncodeOptions parse{.add_special = false, .parse_special = true};
  EXPECT_EQ(t.encode("a</s>b", parse), (std::vector<int32_t>{263, 2, 259, 261}));
  const auto plain = t.encode("</s>", {.add_special = false});
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 2), 0);
  EXPECT_EQ(t.decode(plain), "</s>");
  // User-defined tokens are no secret of the model: they are always found.
  EXPECT_EQ(t.encode("<tool>", {.add_special = false}), (std::vector<int32_t>{265}));
  EXPECT_TRUE(t.is_end(2));
  EXPECT_TRUE(t.is_end(264));
  EXPECT_FALSE(t.is_end(265));
  EXPECT_TRUE(t.is_special(1));
  EXPECT_EQ(t.find("</s>"), 2);
  EXPECT_EQ(t.find("none"), -1);
  EXPECT_EQ(t.piece(262), "ab");
}

TEST(GgufTokenizer, OptionsOfTheFileCount) {
  TokenizerMetadata m = small_llama();
  m.add_bos_token = false;
  m.add_eos_token = true;
  m.add_space_prefix = false;
  m.chat_template = "{{ messages }}";
  const Tokenizer t(tokenizer_data_from_gguf(m));
  EXPECT_EQ(t.encode("ab"), (std::vector<int32_t>{262, 2}));
  EXPECT_EQ(t.decode(t.encode(" a")), " a");
  EXPECT_EQ(t.chat_template(), "{{ messages }}");
}

template <class Change>
std::string refusal(ErrorCode code, Change change) {
  TokenizerMetadata m = small_llama();
  change(m);
  try {
    const Tokenizer t(tokenizer_data_from_gguf(m));
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.message() + " " + e.hint();
  }
  ADD_FAILURE() << "was accepted";
  return {};
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(GgufTokenizer, RefusesWhatDoesNotFitTogether) {
  constexpr auto kCorrupt = ErrorCode::corrupt_data;
  using M = TokenizerMetadata;
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.scores.pop_back(); }), "265 scores for 266"));
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.token_type.pop_back(); }), "265 types"));
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.scores[7] = NAN; }), "piece 7"));
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.token_type[8] = 7; }), "token 8: type 7"));
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.tokens[261] = "a"; }), "piece 261 ('a')"));
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.tokens[9] = "x"; }), "<0x06>"));
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.bos_token_id = 266; }), "bos_token_id: 266"));
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.eos_token_id = -2; }), "eos_token_id: -2"));
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.tokens.clear(); }), "no tokens"));
  EXPECT_TRUE(contains(refusal(kCorrupt, [](M& m) { m.scores.clear(); }), "scores: absent"));
  EXPECT_TRUE(
      contains(refusal(ErrorCode::unsupported, [](M& m) { m.model = "rwkv"; }), "llama, gpt2"));
}

/// What a converter makes of a SentencePiece model.
TokenizerMetadata converted(const std::string& model, const TokenizerData& data) {
  TokenizerMetadata m;
  m.model = model;
  m.tokens = data.pieces;
  for (const double score : data.scores) m.scores.push_back(static_cast<float>(score));
  for (const PieceType type : data.types) m.token_type.push_back(static_cast<int32_t>(type));
  m.bos_token_id = data.special.bos;
  m.eos_token_id = data.special.eos.front();
  m.unknown_token_id = data.special.unk;
  m.add_bos_token = true;
  m.add_eos_token = false;
  m.add_space_prefix = data.normalizer.front().add_dummy_prefix;
  m.remove_extra_whitespaces = data.normalizer.front().remove_extra_whitespaces;
  return m;
}

TEST(GgufTokenizer, ConvertedSentencePieceModelsGiveTheSameIds) {
  const std::pair<const char*, const char*> kFiles[] = {{"llama", "spm_bpe.model"},
                                                        {"t5", "spm_unigram_bytes.model"}};
  for (const auto& [model, file] : kFiles) {
    const TokenizerData data = tokenizer_data_from_sentencepiece(read_text(golden(file)));
    const Tokenizer original(data);
    const Tokenizer gguf(tokenizer_data_from_gguf(converted(model, data)));
    for (const auto& text : golden_json("texts.json").get<std::vector<std::string>>()) {
      const auto ids = gguf.encode(text);
      ASSERT_EQ(ids, original.encode(text)) << file << ": " << text;
      ASSERT_EQ(gguf.decode(ids), original.decode(ids)) << file << ": " << text;
    }
  }
}

TEST(GgufTokenizer, BertHasItsOwnMarksAndEnds) {
  TokenizerMetadata m;
  m.model = "bert";
  m.tokens = {"[UNK]",
              "[CLS]",
              "[SEP]",
              "\xE2\x96\x81un",
              "able",
              "\xE2\x96\x81"
              "able",
              "\xE2\x96\x81!"};
  m.token_type = {3, 3, 3, 1, 1, 1, 1};
  m.unknown_token_id = 0;
  m.cls_token_id = 1;
  m.separator_token_id = 2;
  const Tokenizer t(tokenizer_data_from_gguf(m));
  EXPECT_EQ(t.encode("Unable \xC3\xA4"
                     "ble! x"),
            (std::vector<int32_t>{1, 3, 4, 5, 6, 0, 2}));
  EXPECT_EQ(t.decode(t.encode("unable able!")), "unable able !");
  m.unknown_token_id.reset();
  EXPECT_THROW(tokenizer_data_from_gguf(m), Error);
}

TokenizerMetadata small_gpt2() {
  TokenizerMetadata m;
  m.model = "gpt2";
  m.pre = "gpt-2";
  for (const int32_t c : byte_characters()) {
    m.tokens.emplace_back();
    append_utf8(m.tokens.back(), c);
  }
  m.tokens.push_back("th");
  m.tokens.push_back("the");
  m.merges = {"t h", "th e"};
  return m;
}

TEST(GgufTokenizer, ByteLevelMergesByRank) {
  const Tokenizer t(tokenizer_data_from_gguf(small_gpt2()));
  EXPECT_EQ(t.encode("the th"), (std::vector<int32_t>{257, ' ', 256}));
}

TEST(GgufTokenizer, RefusesUnknownPreTokenizersAndMerges) {
  const auto refuse = [](auto change) {
    TokenizerMetadata m = small_gpt2();
    change(m);
    try {
      const Tokenizer t(tokenizer_data_from_gguf(m));
    } catch (const Error& e) {
      return std::string(to_string(e.code())) + " " + e.message() + " " + e.hint();
    }
    return std::string("accepted");
  };
  const std::string unknown = refuse([](TokenizerMetadata& m) { m.pre = "nobody"; });
  EXPECT_TRUE(contains(unknown, "unsupported")) << unknown;
  EXPECT_TRUE(contains(unknown, "'nobody'")) << unknown;
  EXPECT_TRUE(contains(unknown, "llama-bpe")) << unknown;
  const std::string merge = refuse([](TokenizerMetadata& m) { m.merges[1] = "th q2"; });
  EXPECT_TRUE(contains(merge, "merge 1 ('th' 'q2'): 'q2' is no piece")) << merge;
  const std::string pair = refuse([](TokenizerMetadata& m) { m.merges[0] = "th"; });
  EXPECT_TRUE(contains(pair, "merge 0 is no pair")) << pair;
}

TEST(GgufTokenizer, EveryRowOfTheTableCompilesAndKeepsBytes) {
  const std::string text =
      "It's 12345 of THEM's, camelCase HTMLParser\r\n\n  x\t\xE6\x97\xA5\xE6\x9C\xAC \xFF!";
  for (const PreTokenizerRow& row : pre_tokenizer_rows()) {
    TokenizerMetadata m = small_gpt2();
    m.pre = row.name;
    const Tokenizer t(tokenizer_data_from_gguf(m));
    EXPECT_EQ(t.decode(t.encode(text)), text) << row.name;
  }
}

}  // namespace
}  // namespace narrow::llm
