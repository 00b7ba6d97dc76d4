// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "llm/tokenizer/golden.h"
#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

using nlohmann::json;

Tokenizer golden_tokenizer(const std::string& name) {
  return Tokenizer(read_tokenizer(golden(name)));
}

std::string random_bytes(Rng& rng, size_t most) {
  std::string text;
  const auto size = rng.below(most);
  for (uint64_t i = 0; i < size; ++i) text.push_back(static_cast<char>(rng.below(256)));
  return text;
}

TEST(Tokenizer, ByteLevelModelsKeepEveryByte) {
  Rng rng(3);
  for (const char* name : {"bytes_gpt2.json", "bytes_llama3.json"}) {
    const Tokenizer t = golden_tokenizer(name);
    for (int i = 0; i < 500; ++i) {
      const std::string text = "a\xFF" + random_bytes(rng, 60) + "\xE2\x96";
      EXPECT_EQ(t.decode(t.encode(text)), text);
    }
  }
}

TEST(Tokenizer, OtherModelsReadABadByteAsTheReplacementCharacter) {
  for (const char* name : {"characters_llama.json", "spm_bpe.model", "spm_unigram_bytes.model",
                           "wordpiece_bert.json", "unigram.json"}) {
    const Tokenizer t = golden_tokenizer(name);
    EXPECT_EQ(t.encode("the \xFF\xC3 rabbit\xE2\x96"),
              t.encode("the \xEF\xBF\xBD\xEF\xBF\xBD rabbit\xEF\xBF\xBD\xEF\xBF\xBD"))
        << name;
  }
  const Tokenizer t = golden_tokenizer("spm_bpe.model");
  EXPECT_EQ(t.decode(t.encode("a\xFF")), "a\xEF\xBF\xBD");
}

TEST(Tokenizer, RandomBytesGiveIdsOfTheVocabulary) {
  Rng rng(4);
  for (const auto& entry : std::filesystem::directory_iterator(golden(""))) {
    const std::string name = entry.path().filename().string();
    const bool model = entry.path().extension() == ".model";
    if (!model && !std::filesystem::exists(golden(entry.path().stem().string() + ".ids.json"))) {
      continue;
    }
    const Tokenizer t = golden_tokenizer(name);
    for (int i = 0; i < 50; ++i) {
      for (const int32_t id : t.encode(random_bytes(rng, 200), {.parse_special = true})) {
        ASSERT_GE(id, 0);
        ASSERT_LT(id, t.vocab_size());
      }
    }
  }
}

TEST(Tokenizer, ManyThreadsGetTheSameIds) {
  const Tokenizer t = golden_tokenizer("bytes_gpt2.json");
  const auto texts = golden_json("texts.json").get<std::vector<std::string>>();
  std::vector<std::vector<int32_t>> wanted;
  for (const std::string& text : texts)
    wanted.push_back(golden_tokenizer("bytes_gpt2.json").encode(text));
  std::vector<std::thread> threads;
  std::vector<int> differences(4);
  for (size_t n = 0; n < 4; ++n) {
    threads.emplace_back([&, n] {
      const Tokenizer own = t;
      for (size_t i = 0; i < texts.size(); ++i) {
        const size_t k = (i + n * 17) % texts.size();
        differences[n] += own.encode(texts[k]) != wanted[k];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(differences, std::vector<int>(4));
}

TEST(Tokenizer, MoreWordsThanTheCacheHolds) {
  const Tokenizer t = golden_tokenizer("bytes_gpt2.json");
  std::string text;
  for (int i = 0; i < 150000; ++i) {
    for (int n = i, k = 0; k < 4; ++k, n /= 26) text += static_cast<char>('a' + n % 26);
    text += ' ';
  }
  const auto once = t.encode(text);
  EXPECT_EQ(t.decode(once), text);
  EXPECT_EQ(t.encode(text), once);
}

TEST(Tokenizer, SpecialTokensAreTextUnlessAsked) {
  const Tokenizer t = golden_tokenizer("bytes_gpt2.json");
  const int32_t bos = t.find("<s>");
  const auto plain = t.encode("<s>a");
  EXPECT_EQ(std::count(plain.begin(), plain.end(), bos), 0);
  EXPECT_EQ(t.decode(plain), "<s>a");
  const auto parsed = t.encode("<s>a", {.parse_special = true});
  EXPECT_EQ(parsed.front(), bos);
  EXPECT_EQ(t.decode(parsed), "a");
  EXPECT_EQ(t.decode(parsed, {.skip_special = false}), "<s>a");
  EXPECT_TRUE(t.is_special(bos));
  EXPECT_FALSE(t.is_special(t.find("TOK")));
  // Not special: found without being asked for.
  const auto word = t.encode("a TOK");
  EXPECT_EQ(word.back(), t.find("TOK"));
}

TEST(Tokenizer, AddedTokensAreSearchedAfterTheNormalizer) {
  json j = json::parse(read_text(golden("wordpiece_bert.json")));
  j["added_tokens"].back()["content"] = "ZeBra";
  const Tokenizer t(tokenizer_data_from_json(j.dump()));
  const int32_t id = t.find("ZeBra");
  ASSERT_GE(id, 0);
  EXPECT_EQ(t.encode("ZEBRA", {.add_special = false}), std::vector<int32_t>{id});
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreErrors) {
  const Tokenizer t = golden_tokenizer("bytes_gpt2.json");
  for (const int32_t id : {-1, t.vocab_size()}) {
    EXPECT_THROW(t.decode(std::vector<int32_t>{id}), Error);
    EXPECT_THROW(t.piece(id), Error);
    EXPECT_FALSE(t.is_special(id));
  }
}

TEST(StreamDecoder, HoldsBackBytesOfACharacterThatIsNotComplete) {
  const Tokenizer t = golden_tokenizer("spm_bpe.model");
  const auto ids = t.encode(
      "a\xF0\x9F\x98\x81"
      "b",
      {.add_special = false});
  StreamDecoder stream(t);
  std::vector<std::string> parts;
  for (const int32_t id : ids) parts.push_back(stream.push(id));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "", "", "\xF0\x9F\x98\x81", "b"}));
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoder, ReplacesWhatIsNoCharacter) {
  const Tokenizer t = golden_tokenizer("spm_bpe.model");
  const auto byte = [&t](int b) { return t.find(piece_of_byte(static_cast<uint8_t>(b))); };
  StreamDecoder stream(t);
  EXPECT_EQ(stream.push(byte(0xE2)), "");
  EXPECT_EQ(stream.push(byte(0x41)),
            "\xEF\xBF\xBD"
            "A");
  EXPECT_EQ(stream.push(byte(0x80)), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.push(byte(0xF0)), "");
  EXPECT_EQ(stream.push(byte(0x9F)), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD\xEF\xBF\xBD");
  // Anew: the space at the start is dropped again.
  EXPECT_EQ(stream.push(t.encode("a", {.add_special = false}).front()), "a");
}

TEST(Unicode, DecodesWhatIsWellFormedOnly) {
  for (int32_t code : {0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF}) {
    std::string text;
    append_utf8(text, code);
    EXPECT_EQ(decode_utf8(text).code, code);
    EXPECT_EQ(decode_utf8(text).length, text.size());
    EXPECT_EQ(last_char("x" + text).code, code);
    for (size_t cut = 1; cut < text.size(); ++cut) {
      EXPECT_EQ(decode_utf8(text.substr(0, cut)).code, -1);
      EXPECT_EQ(incomplete_utf8_tail("ab" + text.substr(0, cut)), cut);
    }
    EXPECT_EQ(incomplete_utf8_tail(text), 0u);
  }
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80",
                          "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    EXPECT_EQ(decode_utf8(bad).code, -1);
    EXPECT_FALSE(is_valid_utf8(bad));
    EXPECT_EQ(incomplete_utf8_tail(bad), 0u);
  }
  EXPECT_EQ(replace_invalid_utf8("a\xFF"
                                 "b\xE2\x96"),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\xEF\xBF\xBD");
  for (size_t b = 0; b < 256; ++b) {
    EXPECT_EQ(byte_of_character(byte_characters()[b]), static_cast<int>(b));
    EXPECT_EQ(byte_of_piece(piece_of_byte(static_cast<uint8_t>(b))), static_cast<int>(b));
  }
  EXPECT_EQ(byte_of_character('\n'), -1);
  EXPECT_EQ(byte_of_piece("<0x4>"), -1);
}

}  // namespace
}  // namespace narrow::llm
