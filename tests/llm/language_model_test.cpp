// SPDX-License-Identifier: Apache-2.0
// Whole models against what `transformers` computed (tests/goldens/make_llm.py), through both kinds
// of files, with and without a cache.
#include "narrow/llm/language_model.h"

#include <gtest/gtest.h>

#include "llm/tiny_model.h"
#include "narrow/core/error.h"
#include "narrow/data/npz.h"

namespace narrow::llm {
namespace {

using namespace narrow::llm::testing;

const fs::path kGoldens = fs::path(NARROW_SOURCE_DIR) / "tests/goldens/llm";
const char* const kDecoders[] = {"llama2", "llama3", "mistral",       "qwen2",
                                 "qwen3",  "gemma3", "gemma3_scaled", "gpt2"};

/// Largest difference over the largest magnitude.
double relative_error(const Tensor& got, const Tensor& wanted) {
  EXPECT_EQ(got.elements(), wanted.elements());
  double difference = 0;
  double magnitude = 0;
  const auto a = got.data<float>();
  const auto b = wanted.data<float>();
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
    magnitude = std::max(magnitude, std::abs(static_cast<double>(b[i])));
    if (std::isnan(a[i])) return INFINITY;
  }
  return difference / magnitude;
}

std::vector<int32_t> ids_of(const Tensor& ids) {
  const auto all = ids.data<int64_t>();
  return {all.begin(), all.end()};
}

Tensor zeros(int64_t count) {
  return Tensor(DType::int64, {count});
}

/// The files of a golden model, safetensors and (not all) GGUF.
std::vector<fs::path> files_of(const std::string& family) {
  std::vector<fs::path> files{kGoldens / family};
  if (fs::exists(kGoldens / family / "model.gguf"))
    files.push_back(kGoldens / family / "model.gguf");
  return files;
}

class GoldenDecoder : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenDecoder, LogitsOfTwoSequences) {
  const auto golden = read_npz(kGoldens / GetParam() / "golden.npz");
  const Tensor& ids = golden.at("ids");
  for (const fs::path& file : files_of(GetParam())) {
    const LanguageModel model = LanguageModel::open(file);
    const Session session = model.make_session({});
    const Tensor logits = session.run({ids, zeros(ids.dim(0))}).front();
    EXPECT_EQ(logits.dims(), golden.at("logits").dims());
    EXPECT_LT(relative_error(logits, golden.at("logits")), 1e-5) << file;
  }
}

TEST_P(GoldenDecoder, CachedStepsEqualTheWhole) {
  const auto golden = read_npz(kGoldens / GetParam() / "golden.npz");
  const std::vector<int32_t> ids = ids_of(golden.at("ids"));
  const int64_t length = golden.at("ids").dim(1);
  const int64_t vocab = golden.at("logits").dim(2);
  const LanguageModel model = LanguageModel::open(kGoldens / GetParam());
  const std::pair<CacheType, double> kBounds[] = {
      {CacheType::f32, 1e-5}, {CacheType::f16, 5e-3}, {CacheType::int8, 5e-2}};
  for (const auto& [cache, bound] : kBounds) {
    const CachedDecoder decoder(model, {.capacity = length, .cache = cache, .chunk = 5});
    for (int64_t row = 0; row < 2; ++row) {
      Sequence sequence = decoder.start();
      const std::span<const int32_t> tokens(ids.data() + row * length, length);
      const auto wanted = [&](int64_t token) {
        const float* at = golden.at("logits").data<float>().data() + (row * length + token) * vocab;
        return Tensor::vector(std::vector<float>(at, at + vocab));
      };
      // Twelve tokens in chunks of five, then one by one.
      EXPECT_LT(relative_error(decoder.feed(sequence, tokens.first(12)), wanted(11)), bound);
      for (int64_t t = 12; t < length; ++t) {
        EXPECT_LT(relative_error(decoder.feed(sequence, tokens.subspan(t, 1)), wanted(t)), bound);
      }
      EXPECT_EQ(sequence.length(), length);
    }
    EXPECT_EQ(decoder.session().memory().state_copy_bytes, 0u);
    EXPECT_EQ(decoder.session().memory().shape_plans, 3);  // of 5 tokens, 2, 1
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenDecoder, ::testing::ValuesIn(kDecoders),
                         [](const auto& family) { return std::string(family.param); });

TEST(LanguageModelTest, BertOfPaddedSequences) {
  const auto golden = read_npz(kGoldens / "bert" / "golden.npz");
  const Tensor& ids = golden.at("ids");
  const auto mask = golden.at("attention_mask").data<int64_t>();
  const int64_t length = ids.dim(1);
  Tensor valid(DType::int64, {ids.dim(0)});
  for (int64_t i = 0; i < ids.elements(); ++i) {
    // The mask is a prefix of ones: the tokens that count stand in front.
    ASSERT_TRUE(mask[i] == 0 || i % length == 0 || mask[i - 1] == 1);
    valid.mutable_data<int64_t>()[i / length] += mask[i];
  }
  for (const fs::path& file : files_of("bert")) {
    const LanguageModel model = LanguageModel::open(file);
    const Session session = model.make_session({});
    const Tensor hidden = session.run({ids, golden.at("token_type_ids"), valid}).front();
    const Tensor& wanted = golden.at("last_hidden_state");
    const int64_t width = wanted.dim(2);
    for (int64_t i = 0; i < ids.elements(); ++i) {
      if (mask[i] == 0) continue;
      for (int64_t c = 0; c < width; ++c) {
        ASSERT_NEAR(hidden.data<float>()[i * width + c], wanted.data<float>()[i * width + c], 2e-5)
            << file << " token " << i;
      }
    }
  }
}

TEST(LanguageModelTest, AnswersForTheLastTokenOrFromOneOn) {
  const auto golden = read_npz(kGoldens / "llama2" / "golden.npz");
  const Tensor& ids = golden.at("ids");
  const LanguageModel model = LanguageModel::open(kGoldens / "llama2");
  const Tensor all = model.make_session({}).run({ids, zeros(2)}).front();
  const auto rows = [&](int64_t first) {
    GraphOptions options;
    options.first_logit = first;
    return model.make_session(options).run({ids, zeros(2)}).front();
  };
  const Tensor last = rows(kLastLogit);
  const Tensor tail = rows(20);
  EXPECT_EQ(last.dims(), (Dims{2, 1, 48}));
  EXPECT_EQ(tail.dims(), (Dims{2, 4, 48}));
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t v = 0; v < 48; ++v) {
      EXPECT_EQ(last.data<float>()[b * 48 + v], all.data<float>()[(b * 24 + 23) * 48 + v]);
      EXPECT_EQ(tail.data<float>()[b * 4 * 48 + v], all.data<float>()[(b * 24 + 20) * 48 + v]);
    }
  }
}

TEST(LanguageModelTest, AllFamiliesAgreeThroughGguf) {
  TemporaryFolder folder;
  const std::vector<int32_t> ids{1, 5, 9, 33, 60, 2, 2, 17, 4, 8, 12, 40};
  for (const auto& [name, config] : tiny_configs()) {
    if (name == "bert") continue;
    const LanguageModel hf(tiny_model(folder / name, config, DType::bfloat16));
    write_gguf(folder / "m.gguf", hf.checkpoint(), BlockType::bf16);
    const LanguageModel gguf = LanguageModel::open(folder / "m.gguf");
    EXPECT_LT(relative_error(gguf.logits(ids), hf.logits(ids)), 1e-5) << name;
  }
}

/// A model whose weights are in blocks, and the same with the values that the blocks stand for.
TEST(LanguageModelTest, WeightsInBlocks) {
  TemporaryFolder folder;
  const std::vector<int32_t> ids{1, 5, 9, 33, 60, 2, 2, 17, 4, 8, 12, 40};
  for (const auto& config : {kLlamaConfig, kGemma3Config, kGpt2Config}) {
    const Checkpoint hf = tiny_model(folder / "m", config);
    for (const BlockType type : {BlockType::q8_0, BlockType::q4_0, BlockType::iq4_nl}) {
      write_gguf(folder / "blocks.gguf", hf, type);
      const LanguageModel blocks = LanguageModel::open(folder / "blocks.gguf");
      write_gguf(folder / "floats.gguf", blocks.checkpoint());
      const Tensor wanted = LanguageModel::open(folder / "floats.gguf").logits(ids);
      const auto logits = [&](Activations activations) {
        GraphOptions options;
        options.activations = activations;
        const Session session = blocks.make_session(options);
        return session.run({ids_tensor(ids, 1), zeros(1)}).front();
      };
      EXPECT_LT(relative_error(logits(Activations::real), wanted), 1e-5);
      const double quantized = relative_error(logits(Activations::quantized), wanted);
      EXPECT_LT(quantized, 0.05);
      EXPECT_GT(quantized, 1e-4);  // it was asked for
    }
  }
}

TEST(LanguageModelTest, SequencesForgetAndBranch) {
  TemporaryFolder folder;
  const LanguageModel model(tiny_model(folder.path(), kLlamaConfig));
  for (const CacheType cache : {CacheType::f16, CacheType::int8}) {
    const CachedDecoder decoder(model, {.capacity = 16, .cache = cache});
    const std::vector<int32_t> prompt{1, 7, 30, 12};
    const std::vector<int32_t> next{44};
    Sequence first = decoder.start();
    (void)decoder.feed(first, prompt);
    Sequence second = first.clone();
    const Tensor a = decoder.feed(first, next);
    (void)decoder.feed(second, std::vector<int32_t>{3});
    second.truncate(4);
    EXPECT_TRUE(identical(a, decoder.feed(second, next)));
    EXPECT_THROW(second.truncate(9), Error);
    EXPECT_THROW((void)decoder.feed(first, std::vector<int32_t>(12, 1)), Error);
    EXPECT_EQ(first.length(), 5);
    EXPECT_THROW((void)decoder.feed(first, {}), Error);
  }
}

/// Windows and caps of scores among them. What differs is rounding in front of the codes: a code of
/// 127 may be its neighbour.
TEST(LanguageModelTest, Int8CacheIsWhatTheGraphSays) {
  TemporaryFolder folder;
  const std::vector<int32_t> ids{1, 5, 9, 33, 60, 2, 2, 17, 4, 8, 12, 40};
  for (const auto& [name, config] : tiny_configs()) {
    if (name == "bert") continue;
    const LanguageModel model(tiny_model(folder / name, config));
    GraphOptions options;
    options.cache = CacheType::int8;
    options.capacity = 16;
    const auto logits = [&](const Session& session) {
      State state = session.make_state({{"batch", 2}});
      EXPECT_EQ(state.bytes(), 2 * cache_bytes(model.config(), CacheType::int8, 16));
      std::vector<int32_t> both(ids);
      both.insert(both.end(), ids.rbegin(), ids.rend());
      return session.run({ids_tensor(both, 2), zeros(2)}, state).front();
    };
    SessionOptions written;
    written.lower = false;
    written.states = state_pairs(model.config(), options);
    const Tensor wanted = logits(Session(build_graph(model.checkpoint(), options), written));
    EXPECT_LT(relative_error(logits(model.make_session(options)), wanted), 5e-3) << name;
  }
}

TEST(LanguageModelTest, RefusesWhatItCannotDo) {
  TemporaryFolder folder;
  const LanguageModel gpt2(tiny_model(folder / "gpt2", kGpt2Config));
  EXPECT_THROW((void)gpt2.make_session({.capacity = 65}), Error);
  EXPECT_THROW(CachedDecoder(gpt2, {.cache = CacheType::none}), Error);
  const LanguageModel bert(tiny_model(folder / "bert", kBertConfig));
  EXPECT_THROW(CachedDecoder{bert}, Error);
  EXPECT_THROW((void)ids_tensor(std::vector<int32_t>{1, 2, 3}, 2), Error);
}

}  // namespace
}  // namespace narrow::llm
