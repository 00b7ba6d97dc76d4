// SPDX-License-Identifier: Apache-2.0
#include "cli/cli_testing.h"

namespace narrow::testing {
namespace {

using Ids = std::vector<int32_t>;

std::string golden(const std::string& name) {
  return NARROW_SOURCE_DIR "/tests/goldens/tokenizers/" + name;
}

TEST(Tokenize, IdsOfATextAndOfAFile) {
  const TemporaryFolder folder;
  const auto model = golden("wordpiece_bert.json");
  const Json vocabulary = Json::parse(bytes_of(model)).at("model").at("vocab");
  const int32_t cls = vocabulary.at("[CLS]");
  const int32_t sep = vocabulary.at("[SEP]");
  const int32_t mark = vocabulary.at("!");
  EXPECT_EQ(narrow_json({"tokenize", model, "--text", "!!"}).at("ids").get<Ids>(),
            (Ids{cls, mark, mark, sep}));
  write_file(folder.file("a.txt"), "!\n! !");
  EXPECT_EQ(narrow_json({"tokenize", model, "--input", folder.file("a.txt"), "--no-special"}),
            (Json{{"ids", {mark, mark, mark}}}));
  EXPECT_EQ(narrow_json({"tokenize", model, "--text", "", "--no-special"}),
            (Json{{"ids", Json::array()}}));
}

TEST(Tokenize, LinesAreTextsOfTheirOwn) {
  const TemporaryFolder folder;
  const auto model = golden("wordpiece_bert.json");
  const Json vocabulary = Json::parse(bytes_of(model)).at("model").at("vocab");
  const int32_t mark = vocabulary.at("!");
  write_file(folder.file("a.txt"), "!\n\n!!\n");
  const Json got = narrow_json(
      {"tokenize", model, "--input", folder.file("a.txt"), "--by-line", "--no-special"});
  EXPECT_EQ(got, (Json{{"lines", {{mark}, Json::array(), {mark, mark}}}}));
  write_file(folder.file("empty.txt"), "");
  EXPECT_EQ(narrow_json({"tokenize", model, "--input", folder.file("empty.txt"), "--by-line"}),
            (Json{{"lines", Json::array()}}));
}

TEST(Tokenize, SpecialTokensAreParsedOnRequest) {
  const auto model = golden("spm_bpe.model");
  const Json plain = narrow_json({"tokenize", model, "--text", "</s>", "--no-special"});
  EXPECT_GT(plain.at("ids").size(), 1u);
  const Json parsed =
      narrow_json({"tokenize", model, "--text", "</s>", "--no-special", "--parse-special"});
  EXPECT_EQ(parsed, (Json{{"ids", {2}}}));
}

TEST(Tokenize, ATableOfIdsAndPieces) {
  const Outcome outcome =
      narrow_program({"tokenize", golden("wordpiece_bert.json"), "--text", "! !"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_contains(outcome.out, "[CLS]");
  expect_contains(outcome.out, "4 tokens of a vocabulary of ");
}

TEST(Tokenize, FilesThatHaveNoTokenizer) {
  const Outcome gguf = narrow_program(
      {"tokenize", NARROW_SOURCE_DIR "/tests/goldens/llm/llama2/model.gguf", "--text", "x"});
  EXPECT_EQ(gguf.code, 3);
  expect_contains(gguf.err, "model.gguf: the file has no tokenizer");
  const Outcome folder = narrow_program({"tokenize", NARROW_SOURCE_DIR "/assets", "--text", "x"});
  EXPECT_EQ(folder.code, 3);
  expect_contains(folder.err, "no tokenizer.json");
  const Outcome input =
      narrow_program({"tokenize", golden("spm_bpe.model"), "--input", "/nonexistent/text"});
  EXPECT_EQ(input.code, 3);
  expect_contains(input.err, "/nonexistent/text");
}

}  // namespace
}  // namespace narrow::testing
