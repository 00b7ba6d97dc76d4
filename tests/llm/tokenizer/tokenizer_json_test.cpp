// SPDX-License-Identifier: Apache-2.0
// What readers refuse, with the place, and the files beside tokenizer.json.
#include "narrow/llm/tokenizer/tokenizer_json.h"

#include <gtest/gtest.h>

#include <fstream>

#include "llm/tokenizer/golden.h"
#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/sentencepiece_model.h"
#include "narrow/llm/tokenizer/tokenizer.h"

namespace narrow::llm {
namespace {

using nlohmann::json;

std::string refusal(const std::string& text, bool model = false) {
  try {
    const Tokenizer t(model ? tokenizer_data_from_sentencepiece(text)
                            : tokenizer_data_from_json(text));
  } catch (const Error& e) {
    return std::string(to_string(e.code())) + " " + e.message();
  }
  return "accepted";
}

json base(const std::string& name = "bytes_gpt2.json") {
  return json::parse(read_text(golden(name)));
}

void expect_refusal(const json& file, const std::string& code, const std::string& part) {
  const std::string message = refusal(file.dump());
  EXPECT_TRUE(message.starts_with(code)) << message;
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(TokenizerJson, UnknownPartsAreRefusedByName) {
  const auto with = [](const char* part, const json& value) {
    json j = base();
    j[part] = value;
    return j;
  };
  const std::string code = "unsupported";
  expect_refusal(with("normalizer", {{"type", "Nmt"}}), code, "normalizer 'Nmt'");
  expect_refusal(with("pre_tokenizer", {{"type", "UnicodeScripts"}}), code, "'UnicodeScripts'");
  expect_refusal(with("decoder", {{"type", "CTC"}}), code, "decoder 'CTC'");
  expect_refusal(with("post_processor", {{"type", "Other"}}), code, "post_processor 'Other'");
  expect_refusal(with("model", {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}}), code,
                 "'WordLevel'");
  json split = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Sideways"}};
  expect_refusal(with("pre_tokenizer", split), code, "'Sideways'");
  split = {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
  expect_refusal(with("pre_tokenizer", split), code, "regular expression '(a'");
  json fused = {{"type", "Sequence"},
                {"decoders", {{{"type", "Fuse"}}, {{"type", "ByteFallback"}}}}};
  expect_refusal(with("decoder", fused), code, "after Fuse");
  json dropout = base();
  dropout["model"]["dropout"] = 0.1;
  expect_refusal(dropout, code, "dropout");
}

TEST(TokenizerJson, VocabulariesMustFitTogether) {
  const std::string code = "corrupt_data";
  json j = base();
  j["model"]["vocab"].erase("!");
  expect_refusal(j, code, "no piece has the id");
  j = base();
  j["model"]["vocab"]["!"] = j["model"]["vocab"]["a"];
  expect_refusal(j, code, "is there twice");
  j = base();
  j["model"]["vocab"]["!"] = 2'000'000'000;
  expect_refusal(j, code, "beyond a hole");
  j = base();
  j["model"]["vocab"]["!"] = -1;
  expect_refusal(j, code, "-1 is out of range");
  j = base();
  j["model"]["merges"][3] = {"a", "nowhere"};
  expect_refusal(j, code, "merge 3 ('a' 'nowhere'): 'nowhere' is no piece");
  j = base();
  j["model"]["merges"][4] = {"!", "!"};
  expect_refusal(j, code, "merge 4 ('!' '!'): '!!' is no piece");
  j = base();
  j["model"]["merges"][5] = 7;
  expect_refusal(j, code, "merge 5");
  j = base();
  j["added_tokens"][0]["id"] = 5;
  expect_refusal(j, code, "has the id 5");
  j = base();
  j["model"]["unk_token"] = "none";
  expect_refusal(j, code, "unknown piece 'none'");
  j = base("wordpiece_bert.json");
  j["model"]["unk_token"] = "none";
  expect_refusal(j, code, "unknown piece 'none'");
  j = base("unigram.json");
  j["model"]["vocab"][9][1] = 1e300;
  expect_refusal(j, code, "piece 9");
  j = base("unigram.json");
  j["model"]["vocab"][9] = j["model"]["vocab"][8];
  expect_refusal(j, code, "piece 9");
  j = base("unigram.json");
  j["model"]["unk_id"] = 100000;
  expect_refusal(j, code, "unk is 100000");
  j = base("unigram.json");
  j["model"]["unk_id"] = nullptr;
  expect_refusal(j, code, "no unknown piece");
}

TEST(TokenizerJson, TextThatIsNoTokenizer) {
  EXPECT_EQ(refusal(""), "corrupt_data tokenizer.json: is no JSON object");
  EXPECT_EQ(refusal("[]"), "corrupt_data tokenizer.json: is no JSON object");
  EXPECT_EQ(refusal("{}"), "corrupt_data tokenizer.json: tokenizer: 'model' is absent");
  EXPECT_EQ(refusal(std::string(100000, '[')), "corrupt_data tokenizer.json: nests too deeply");
  json nested = {{"type", "NFC"}};
  for (int i = 0; i < 20; ++i) nested = {{"type", "Sequence"}, {"normalizers", {nested}}};
  json j = base();
  j["normalizer"] = nested;
  expect_refusal(j, "corrupt_data", "nest too deeply");
}

TEST(TokenizerJson, ANormalizerCannotLetTheTextExplode) {
  json j = base();
  json steps = json::array();
  for (int i = 0; i < 12; ++i) {
    steps.push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaaaa"}});
  }
  j["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  try {
    Tokenizer(tokenizer_data_from_json(j.dump())).encode("aaaa");
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::resource_exhausted);
  }
}

TEST(SentencePieceModel, EveryCutAndEveryFlippedBitIsReadOrRefused) {
  const std::string good = read_text(golden("spm_unigram.model"));
  EXPECT_EQ(refusal(good, true), "accepted");
  for (size_t size = 0; size < good.size(); size += size < 200 ? 1 : 97) {
    const std::string message = refusal(good.substr(0, size), true);
    EXPECT_TRUE(message == "accepted" || message.starts_with("corrupt_data")) << message;
  }
  for (size_t at = 0; at < good.size(); at += 13) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    const std::string message = refusal(bad, true);
    EXPECT_TRUE(message == "accepted" || message.starts_with("corrupt_data") ||
                message.starts_with("unsupported"))
        << message;
  }
  EXPECT_EQ(refusal("\x0A\x7F", true),
            "corrupt_data tokenizer.model: byte 2: a field ends past its message");
}

class Folder : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / "narrow_tokenizer_folder";
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  void put(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  std::filesystem::path path_;
};

TEST_F(Folder, TheFilesBesideATokenizerCount) {
  put("tokenizer.json", read_text(golden("bytes_gpt2.json")));
  put("tokenizer_config.json",
      R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null,
          "mask_token": "<mask>", "chat_template": [{"name": "tool", "template": "t"},
          {"name": "default", "template": "{{ x }}"}]})");
  put("generation_config.json", R"({"eos_token_id": [1, 7]})");
  const Tokenizer t(read_tokenizer(path_));
  EXPECT_EQ(t.special().bos, 0);
  EXPECT_EQ(t.special().eos, (std::vector<int32_t>{1, 7}));
  EXPECT_EQ(t.special().pad, -1);
  EXPECT_EQ(t.special().mask, t.find("<mask>"));
  EXPECT_EQ(t.chat_template(), "{{ x }}");
  EXPECT_TRUE(t.is_end(7));
  put("chat_template.jinja", "newer");
  EXPECT_EQ(Tokenizer(read_tokenizer(path_)).chat_template(), "newer");
}

TEST_F(Folder, ErrorsNameTheFile) {
  try {
    read_tokenizer(path_);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::not_found);
  }
  put("tokenizer.model", read_text(golden("spm_bpe.model")));
  EXPECT_EQ(read_tokenizer(path_).model, TokenizerModel::spm_bpe);
  put("generation_config.json", R"({"eos_token_id": -3})");
  try {
    read_tokenizer(path_);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::corrupt_data);
    EXPECT_NE(e.context().find("generation_config.json"), std::string::npos);
  }
}

}  // namespace
}  // namespace narrow::llm
