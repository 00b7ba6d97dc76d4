// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/model_tokenizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cctype>
#include <sstream>

#include "llm/tokenizer/golden.h"
#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/sentencepiece_model.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/vocabulary.h"

namespace narrow::llm {
namespace {

namespace fs = std::filesystem;

/// The texts of an .inp file: lines of separators stand between them.
std::vector<std::string> input_texts(const fs::path& path) {
  const std::string all = read_text(path);
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  for (size_t at = 0, end; at < all.size(); at = end + separator.size()) {
    end = std::min(all.find(separator, at), all.size());
    texts.push_back(all.substr(at, end - at));
    if (end == all.size()) break;
  }
  return texts;
}

class Vocabulary : public ::testing::TestWithParam<const char*> {};

TEST_P(Vocabulary, EqualsTheReferenceOfItsFile) {
  if (assets().empty()) GTEST_SKIP() << "NARROW_ASSETS is absent";
  const std::string base = (assets() / "gguf-vocab" / GetParam()).string();
  const Tokenizer tokenizer(read_model_tokenizer(base));
  const auto texts = input_texts(base + ".inp");
  std::istringstream wanted(read_text(base + ".out"));
  ASSERT_GT(texts.size(), 40u);
  for (const std::string& text : texts) {
    std::string line;
    ASSERT_TRUE(std::getline(wanted, line));
    std::string got;
    for (const int32_t id : tokenizer.encode(text, {.add_special = false})) {
      got += " " + std::to_string(id);
    }
    EXPECT_EQ(got, line) << "'" << text << "'";
    if (tokenizer.data().model != TokenizerModel::wordpiece) {
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Gguf, Vocabulary,
                         ::testing::Values("ggml-vocab-llama-spm.gguf", "ggml-vocab-gpt-2.gguf",
                                           "ggml-vocab-bert-bge.gguf", "ggml-vocab-phi-3.gguf",
                                           "ggml-vocab-starcoder.gguf"),
                         [](const auto& name) {
                           std::string text = name.param;
                           for (char& c : text) c = std::isalnum(c) != 0 ? c : '_';
                           return text;
                         });

TEST(ModelTokenizer, GptNeoxWithoutAPreTokenizerKeepsItsText) {
  if (assets().empty()) GTEST_SKIP() << "NARROW_ASSETS is absent";
  const Tokenizer tokenizer(read_model_tokenizer(assets() / "gguf-vocab/ggml-vocab-gpt-neox.gguf"));
  const std::string text = "Hello  world, 1234 tokens\n\tof 我想 \xF0\x9F\x98\x81!";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

/// Writes a file of these keys, without tensors, and removes it.
class WrittenFile {
 public:
  explicit WrittenFile(const GgufMetadata& metadata)
      : path_(fs::temp_directory_path() /
              fmt::format("narrow-tokenizer-{}.gguf", static_cast<const void*>(this))) {
    GgufWriter(path_, metadata, {}).commit();
  }
  ~WrittenFile() { fs::remove(path_); }
  WrittenFile(const WrittenFile&) = delete;
  WrittenFile& operator=(const WrittenFile&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// Arrays of bytes are there for one key alone: u32 kind, u64 count, the bytes.
GgufValue byte_array(const std::string& bytes) {
  std::string array(12, '\0');
  for (size_t i = 0; i < 8; ++i) {
    array[4 + i] = static_cast<char>(uint64_t{bytes.size()} >> (8 * i) & 0xFF);
  }
  auto owner = std::make_shared<const std::string>(array + bytes);
  auto view = std::as_bytes(std::span(*owner));
  return GgufValue::read(GgufKind::array, owner, view);
}

/// A SentencePiece model as converters write it.
GgufMetadata converted(const std::string& model, const TokenizerData& data) {
  std::vector<float> scores(data.scores.begin(), data.scores.end());
  std::vector<int32_t> types;
  for (const PieceType type : data.types) types.push_back(static_cast<int32_t>(type));
  const NormalizerStep& normalizer = data.normalizer.front();
  GgufMetadata m = {{"tokenizer.ggml.model", GgufValue::string(model)},
                    {"tokenizer.ggml.pre", GgufValue::string("default")},
                    {"tokenizer.ggml.tokens", GgufValue::strings(data.pieces)},
                    {"tokenizer.ggml.scores", GgufValue::f32s(scores)},
                    {"tokenizer.ggml.token_type", GgufValue::i32s(types)},
                    {"tokenizer.chat_template", GgufValue::string("{{ messages }}")}};
  const auto add = [&m](const std::string& name, GgufValue value) {
    m.emplace_back("tokenizer.ggml." + name, std::move(value));
  };
  add("bos_token_id", GgufValue::u32(static_cast<uint32_t>(data.special.bos)));
  add("eos_token_id", GgufValue::u32(static_cast<uint32_t>(data.special.eos.front())));
  add("unknown_token_id", GgufValue::u32(static_cast<uint32_t>(data.special.unk)));
  add("padding_token_id", GgufValue::u32(UINT32_MAX));  // what converters write for none
  add("add_bos_token", GgufValue::boolean(true));
  add("add_eos_token", GgufValue::boolean(true));
  add("add_space_prefix", GgufValue::boolean(normalizer.add_dummy_prefix));
  add("remove_extra_whitespaces", GgufValue::boolean(normalizer.remove_extra_whitespaces));
  return m;
}

TokenizerData golden_model(const char* file) {
  return tokenizer_data_from_sentencepiece(read_text(golden(file)));
}

TEST(ModelTokenizer, AConvertedModelGivesTheSameIds) {
  const std::pair<const char*, const char*> kFiles[] = {{"llama", "spm_bpe.model"},
                                                        {"t5", "spm_unigram_bytes.model"}};
  for (const auto& [model, name] : kFiles) {
    TokenizerData data = golden_model(name);
    const WrittenFile file(converted(model, data));
    data.prefix_ids = {data.special.bos};
    data.suffix_ids = {data.special.eos.front()};
    const Tokenizer original(data);
    const Tokenizer gguf(read_model_tokenizer(file.path()));
    EXPECT_EQ(gguf.chat_template(), "{{ messages }}");
    EXPECT_EQ(gguf.special().pad, -1);
    for (const auto& text : golden_json("texts.json").get<std::vector<std::string>>()) {
      const auto ids = gguf.encode(text);
      ASSERT_EQ(ids, original.encode(text)) << name << ": " << text;
      ASSERT_EQ(gguf.decode(ids), original.decode(ids)) << name << ": " << text;
    }
  }
}

TEST(ModelTokenizer, EveryKeyArrives) {
  const std::vector<std::string> pieces = {"a", "b", "ab"};
  const std::vector<std::string> merges = {"a b"};
  GgufMetadata keys = {{"tokenizer.ggml.model", GgufValue::string("gpt2")},
                       {"tokenizer.ggml.pre", GgufValue::string("qwen2")},
                       {"tokenizer.ggml.tokens", GgufValue::strings(pieces)},
                       {"tokenizer.ggml.merges", GgufValue::strings(merges)}};
  const char* kIds[] = {"bos", "eos", "eot", "unknown", "seperator", "padding", "cls", "mask"};
  for (uint16_t i = 0; i < 8; ++i) {
    keys.emplace_back(fmt::format("tokenizer.ggml.{}_token_id", kIds[i]), GgufValue::u16(i));
  }
  keys.emplace_back("tokenizer.ggml.precompiled_charsmap", byte_array("\x04\xFF\x80z"));
  keys.emplace_back("tokenizer.ggml.add_sep_token", GgufValue::boolean(true));
  keys.emplace_back("tokenizer.ggml.add_eos_token", GgufValue::boolean(false));
  const WrittenFile file(keys);
  const TokenizerMetadata m = vocabulary_of(GgufFile::open(file.path()));
  EXPECT_EQ(m.model, "gpt2");
  EXPECT_EQ(m.pre, "qwen2");
  EXPECT_EQ(m.tokens, pieces);
  EXPECT_EQ(m.merges, merges);
  const std::optional<int64_t> ids[] = {
      m.bos_token_id,       m.eos_token_id,     m.eot_token_id, m.unknown_token_id,
      m.separator_token_id, m.padding_token_id, m.cls_token_id, m.mask_token_id};
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(ids[i], i) << kIds[i];
  EXPECT_EQ(m.precompiled_charsmap, "\x04\xFF\x80z");
  EXPECT_EQ(m.add_sep_token, true);
  EXPECT_EQ(m.add_eos_token, false);
  EXPECT_FALSE(m.add_bos_token.has_value());
  EXPECT_FALSE(m.add_space_prefix.has_value());
}

/// What reading says when the key has this value.
std::string refusal(ErrorCode code, const std::string& key, GgufValue value) {
  GgufMetadata keys = converted("llama", golden_model("spm_bpe.model"));
  bool replaced = false;
  for (auto& [name, old] : keys) {
    if (name != key) continue;
    old = value;
    replaced = true;
  }
  if (!replaced) keys.emplace_back(key, value);
  const WrittenFile file(keys);
  try {
    read_model_tokenizer(file.path());
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_NE(e.context().find(file.path().string()), std::string::npos) << e.what();
    return e.what();
  }
  return "accepted";
}

void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(ModelTokenizer, AKeyOfAnotherKindIsNamed) {
  constexpr auto kCorrupt = ErrorCode::corrupt_data;
  const std::vector<int32_t> numbers = {1, 2};
  const auto array = GgufValue::i32s(numbers);
  const auto text = GgufValue::string("x");
  for (const char* key : {"tokens", "merges"}) {
    const std::string name = std::string("tokenizer.ggml.") + key;
    expect_in(refusal(kCorrupt, name, array), name + ": ");
  }
  expect_in(refusal(kCorrupt, "tokenizer.ggml.model", array), "tokenizer.ggml.model: ");
  expect_in(refusal(kCorrupt, "tokenizer.ggml.scores", text), "tokenizer.ggml.scores: ");
  expect_in(refusal(kCorrupt, "tokenizer.ggml.token_type", text), "tokenizer.ggml.token_type: ");
  expect_in(refusal(kCorrupt, "tokenizer.ggml.bos_token_id", text), "bos_token_id: ");
  expect_in(refusal(kCorrupt, "tokenizer.ggml.bos_token_id", GgufValue::i64(-5)), "-5");
  expect_in(refusal(kCorrupt, "tokenizer.ggml.add_bos_token", text), "add_bos_token: ");
  expect_in(refusal(ErrorCode::unsupported, "tokenizer.ggml.model", text), "'x'");
}

TEST(ModelTokenizer, AFileWithoutOneSaysSo) {
  const WrittenFile empty({{"general.name", GgufValue::string("x")}});
  try {
    read_model_tokenizer(empty.path());
    ADD_FAILURE() << "was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::not_found);
    expect_in(e.what(), "has no tokenizer");
  }
}

TEST(ModelTokenizer, OtherFilesAreReadAsBefore) {
  const std::string text = "Hello there";
  EXPECT_EQ(Tokenizer(read_model_tokenizer(golden("spm_bpe.model"))).encode(text),
            Tokenizer(read_tokenizer(golden("spm_bpe.model"))).encode(text));
  EXPECT_THROW(read_model_tokenizer(golden("nothing-of-this-name")), Error);
}

}  // namespace
}  // namespace narrow::llm
