// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/embed.h"

#include <gtest/gtest.h>

#include "llm/tiny_model.h"
#include "narrow/core/error.h"
#include "narrow/data/npz.h"
#include "narrow/llm/language_model.h"
#include "narrow/llm/sentence_settings.h"

namespace narrow::llm {
namespace {

using namespace narrow::llm::testing;

const fs::path kGoldens = fs::path(NARROW_SOURCE_DIR) / "tests/goldens";
const fs::path kNovels = fs::path(NARROW_SOURCE_DIR) / "assets/novels-7m";

/// The tiny BERT with the files of make_embed.py.
void write_model(const fs::path& folder) {
  fs::create_directories(folder);
  fs::copy(kGoldens / "embed", folder, fs::copy_options::recursive);
  for (const char* name : {"config.json", "model.safetensors"}) {
    fs::copy(kGoldens / "llm/bert" / name, folder / name);
  }
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    lines.push_back(text.substr(0, text.find('\n')));
    text.remove_prefix(lines.back().size() + 1);
  }
  return lines;
}

Tensor embed_all(const Embedder& embedder, std::span<const std::string_view> texts,
                 EmbedCounts* counts = nullptr) {
  std::vector<float> all;
  const EmbedCounts c = embedder.embed(texts, [&](const Tensor& rows) {
    all.insert(all.end(), rows.data<float>().begin(), rows.data<float>().end());
  });
  if (counts) *counts = c;
  return Tensor::from(all, {static_cast<int64_t>(texts.size()), embedder.width()});
}

double largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.dims(), b.dims());
  double worst = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    worst = std::max(worst, static_cast<double>(std::abs(a.data<float>()[i] - b.data<float>()[i])));
  }
  return worst;
}

class EmbedTest : public ::testing::Test {
 protected:
  EmbedTest() { write_model(folder_ / "bert"); }

  fs::path model() const { return folder_ / "bert"; }
  void write(const std::string& name, const std::string& text) { write_text(model() / name, text); }
  void expect_refused(ErrorCode code, const std::string& message,
                      const EmbedOptions& options = {}) {
    try {
      (void)Embedder::open(model(), options);
      ADD_FAILURE() << "not refused: " << message;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  }

  TemporaryFolder folder_;
  const std::map<std::string, Tensor> golden_ = read_npz(kGoldens / "embed/golden.npz");
  const std::string text_ = read_text(kGoldens / "embed/texts.txt");
  const std::vector<std::string_view> texts_ = lines_of(text_);
};

TEST_F(EmbedTest, IdsAreCutAsSentenceTransformersDoes) {
  const Embedder embedder = Embedder::open(model());
  EXPECT_EQ(embedder.max_tokens(), 12);
  const auto ids = golden_.at("ids").data<int64_t>();
  size_t at = 0;
  for (size_t i = 0; i < texts_.size(); ++i) {
    bool truncated = false;
    const std::vector<int32_t> got = embedder.encode(texts_[i], &truncated);
    ASSERT_EQ(static_cast<int64_t>(got.size()), golden_.at("lengths").data<int64_t>()[i]);
    for (const int32_t id : got) ASSERT_EQ(id, ids[at++]) << texts_[i];
    EXPECT_EQ(truncated, i == 6) << texts_[i];
  }
}

TEST_F(EmbedTest, VectorsAreThoseOfNumpy) {
  write_gguf(folder_ / "bert.gguf", Checkpoint::open(model()));
  for (const fs::path& file : {model(), folder_ / "bert.gguf"}) {
    for (const Pooling pooling : {Pooling::mean, Pooling::cls, Pooling::last}) {
      for (const bool normalize : {true, false}) {
        SCOPED_TRACE(file.string() + " " + to_string(pooling));
        EmbedOptions options;
        options.pooling = pooling;
        options.normalize = normalize;
        options.max_tokens = 12;  // the GGUF file says only how many positions there are
        EmbedCounts counts;
        const Tensor got = embed_all(Embedder::open(file, options), texts_, &counts);
        const std::string name = std::string(to_string(pooling)) + (normalize ? "_normalized" : "");
        EXPECT_LT(largest_difference(got, golden_.at(name)), normalize ? 2e-6 : 1e-5);
        EXPECT_EQ(counts.texts, 11);
        EXPECT_EQ(counts.truncated, 1);
        EXPECT_EQ(counts.tokens, golden_.at("ids").elements());
        EXPECT_EQ(counts.ill_formed, 0);
      }
    }
  }
}

TEST_F(EmbedTest, PoolingComesFromTheFiles) {
  EXPECT_EQ(Embedder::open(model()).pooling(), Pooling::mean);
  write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true})");
  EXPECT_EQ(Embedder::open(model()).pooling(), Pooling::cls);
  // And goes on to GGUF.
  write_gguf(folder_ / "cls.gguf", Checkpoint::open(model()));
  EXPECT_EQ(Embedder::open(folder_ / "cls.gguf").pooling(), Pooling::cls);
  write("1_Pooling/config.json", R"({"pooling_mode": "lasttoken"})");
  EXPECT_EQ(Embedder::open(model()).pooling(), Pooling::last);
  fs::remove(model() / "modules.json");
  EXPECT_EQ(Embedder::open(model()).pooling(), Pooling::mean);
  EXPECT_EQ(Embedder::open(model()).max_tokens(), 40);
}

TEST_F(EmbedTest, DefaultPromptStandsInFront) {
  const std::vector<int32_t> wanted = Embedder::open(model()).encode("the cat");
  write("config_sentence_transformers.json",
        R"({"prompts": {"query": "the "}, "default_prompt_name": "query"})");
  EXPECT_EQ(Embedder::open(model()).encode("cat"), wanted);
  write("1_Pooling/config.json", R"({"pooling_mode": "mean", "include_prompt": false})");
  expect_refused(ErrorCode::unsupported, "prompt");
}

TEST_F(EmbedTest, RefusesWhatItDoesNotKnow) {
  expect_refused(ErrorCode::invalid_argument, "41 tokens", {.max_tokens = 41});
  expect_refused(ErrorCode::invalid_argument, "leave nothing", {.max_tokens = 2});
  write("1_Pooling/config.json", R"({"pooling_mode_max_tokens": true})");
  expect_refused(ErrorCode::unsupported, "pooling is max");
  write("1_Pooling/config.json",
        R"({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true})");
  expect_refused(ErrorCode::unsupported, "several");
  write("1_Pooling/config.json", R"({"pooling_mode_mean_tokens": 3})");
  expect_refused(ErrorCode::corrupt_data, "pooling_mode_mean_tokens");
  write("modules.json", R"([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])");
  expect_refused(ErrorCode::unsupported, "Dense");
  write("modules.json", R"([{"type": "x.Pooling", "path": "../elsewhere"}])");
  expect_refused(ErrorCode::corrupt_data, "elsewhere");
  for (const char* broken : {"[", "{}", "[3]", "[{}]", R"([{"type": 3}])"}) {
    write("modules.json", broken);
    expect_refused(ErrorCode::corrupt_data, "modules.json");
  }
  write("modules.json", R"([{"type": "x.Transformer"}])");
  write("sentence_bert_config.json", R"({"max_seq_length": -1})");
  expect_refused(ErrorCode::corrupt_data, "max_seq_length");
}

/// The same bytes whatever runs beside a text and however many threads there are.
TEST_F(EmbedTest, VectorsDependOnTheirTextAlone) {
  const Checkpoint tiny = tiny_model(folder_ / "tiny", kBertConfig, DType::bfloat16);
  fs::copy(kGoldens / "embed/tokenizer.json", folder_ / "tiny/tokenizer.json");
  write_gguf(folder_ / "q8.gguf", Checkpoint::open(folder_ / "tiny"), BlockType::q8_0);
  std::vector<std::string> many;
  for (int i = 0; i < 60; ++i)
    many.push_back(std::string(texts_[i % 11]) + " cat" + (i % 2 ? "s" : ""));
  const std::vector<std::string_view> texts(many.begin(), many.end());
  for (const fs::path& file : {model(), folder_ / "tiny", folder_ / "q8.gguf"}) {
    SCOPED_TRACE(file);
    const auto embedded = [&](int64_t batch, int threads) {
      EmbedOptions options;
      options.batch = batch;
      options.threads = threads;
      return embed_all(Embedder::open(file, options), texts);
    };
    const Tensor wanted = embedded(1, 1);
    EXPECT_TRUE(identical(wanted, embedded(1000, 1)));
    EXPECT_TRUE(identical(wanted, embedded(1000, 4)));
    EXPECT_TRUE(identical(wanted, embedded(7, 3)));
  }
}

/// The last hidden state of a decoder is what its output matrix makes logits of.
TEST(EmbedDecoderTest, GivesTheStatesBeforeTheLogits) {
  const LanguageModel model = LanguageModel::open(kNovels);
  EmbedOptions options;
  options.pooling = Pooling::last;
  options.normalize = false;
  const Embedder embedder = Embedder::open(kNovels, options);
  const std::vector<std::vector<int32_t>> texts{embedder.encode("It was a dark evening")};
  const Tensor hidden = embedder.embed_ids(texts);
  const Tensor logits = model.logits(texts[0]);
  const bool tied = model.config().tied_embedding;
  const Tensor matrix = model.checkpoint().read(tied ? "token_embd.weight" : "output.weight");
  const int64_t width = embedder.width();
  const float* last = logits.data<float>().data() + (logits.dim(0) - 1) * logits.dim(1);
  for (int64_t row = 0; row < matrix.dim(0); row += 97) {
    double sum = 0;
    for (int64_t c = 0; c < width; ++c) {
      sum += static_cast<double>(matrix.data<float>()[row * width + c]) *
             static_cast<double>(hidden.data<float>()[c]);
    }
    ASSERT_NEAR(sum, static_cast<double>(last[row]), 2e-3) << row;
  }
  EXPECT_THROW((void)Embedder::open(kNovels), Error);  // nothing says how to pool
  EXPECT_THROW((void)embedder.embed_ids(std::vector<std::vector<int32_t>>{{}}), Error);
}

}  // namespace
}  // namespace narrow::llm
