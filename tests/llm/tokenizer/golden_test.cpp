// SPDX-License-Identifier: Apache-2.0
// Ids and texts equal those of `tokenizers` and `sentencepiece`.
#include <gtest/gtest.h>

#include "llm/tokenizer/golden.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

struct Reference {
  const char* file;
  bool parse_special;  // `tokenizers` finds special tokens in the text, `sentencepiece` does not
};

class Golden : public ::testing::TestWithParam<Reference> {};

std::string decoded_as_text(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  StreamDecoder stream(tokenizer);
  std::string out;
  for (const int32_t id : ids) out += stream.push(id);
  return out + stream.finish();
}

TEST_P(Golden, IdsAndTextsEqualTheReference) {
  const std::filesystem::path file = golden(GetParam().file);
  const Tokenizer tokenizer(read_tokenizer(file));
  const auto texts = golden_json("texts.json");
  const auto rows = golden_json(file.stem().string() + ".ids.json");
  ASSERT_EQ(texts.size(), rows.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    SCOPED_TRACE("text " + std::to_string(i) + ": " + text.substr(0, 200));
    const auto ids = tokenizer.encode(text, {true, GetParam().parse_special});
    if (rows[i][0].is_array()) {
      EXPECT_EQ(ids, rows[i][0].get<std::vector<int32_t>>());
    } else {
      EXPECT_EQ(hash_of(std::span(ids)), rows[i][0].get<std::string>());
    }
    const std::string decoded = decoded_as_text(tokenizer, ids);
    EXPECT_EQ(decoded, replace_invalid_utf8(tokenizer.decode(ids)));
    const std::string wanted = rows[i][1].is_null() ? text : rows[i][1].get<std::string>();
    if (wanted != decoded) {
      EXPECT_EQ(hash_of(std::span<const char>(decoded)), wanted) << decoded;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Tokenizers, Golden,
    ::testing::Values(
        Reference{"bytes_gpt2.json", true}, Reference{"bytes_llama3.json", true},
        Reference{"bytes_qwen2.json", true}, Reference{"bytes_o200k.json", true},
        Reference{"characters_llama.json", true}, Reference{"characters_metaspace.json", true},
        Reference{"characters_affixes.json", true}, Reference{"characters_split_a.json", true},
        Reference{"characters_split_b.json", true}, Reference{"characters_split_c.json", true},
        Reference{"wordpiece_bert.json", true}, Reference{"unigram.json", true},
        Reference{"spm_bpe.model", false}, Reference{"spm_bpe_plain.model", false},
        Reference{"spm_unigram.model", false}, Reference{"spm_unigram_bytes.model", false}),
    [](const auto& reference) {
      return std::filesystem::path(reference.param.file).stem().string();
    });

TEST(GoldenAssets, RealTokenizersGiveTheIdsOfTheReference) {
  if (assets().empty()) GTEST_SKIP() << "NARROW_ASSETS is absent";
  const auto hashes = golden_json("assets.json");
  for (const auto& [key, wanted] : hashes.items()) {
    SCOPED_TRACE(key);
    const size_t space = key.find(' ');
    const Tokenizer tokenizer(read_tokenizer(assets() / key.substr(0, space)));
    const std::string text = read_text(assets() / key.substr(space + 1));
    const auto ids = tokenizer.encode(text);
    EXPECT_EQ(hash_of(std::span(ids)), wanted.get<std::string>());
    EXPECT_EQ(tokenizer.decode(ids), text);
  }
}

}  // namespace
}  // namespace narrow::llm
