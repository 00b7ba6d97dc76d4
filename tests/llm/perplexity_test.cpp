// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "llm/tiny_model.h"
#include "narrow/core/error.h"

namespace narrow::llm {
namespace {

using namespace narrow::llm::testing;

std::vector<int32_t> random_ids(int64_t count, uint64_t seed = 3) {
  Rng rng(seed);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(rng.below(61)));
  return ids;
}

/// ln p of each vocabulary entry behind token `row`.
std::vector<double> log_probabilities(const Tensor& logits, int64_t row) {
  const int64_t vocab = logits.dim(1);
  const float* x = logits.data<float>().data() + row * vocab;
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(x[i]));
  std::vector<double> out;
  for (int64_t i = 0; i < vocab; ++i) out.push_back(static_cast<double>(x[i]) - std::log(sum));
  return out;
}

class PerplexityTest : public ::testing::Test {
 protected:
  PerplexityTest()
      : model_(tiny_model(folder_ / "a", kLlamaConfig, DType::bfloat16)),
        other_(make_other(folder_ / "b")) {}

  static LanguageModel make_other(const fs::path& path) {
    write_model(path, kLlamaConfig, random_weights(kLlamaConfig, DType::bfloat16, 2));
    return LanguageModel::open(path);
  }

  TemporaryFolder folder_;
  LanguageModel model_;
  LanguageModel other_;
};

TEST_F(PerplexityTest, HalvesScoreTheSecondHalf) {
  const std::vector<int32_t> ids = random_ids(37);
  std::vector<double> nll;
  for (size_t chunk = 0; chunk < 3; ++chunk) {
    std::vector<int32_t> part(ids.begin() + chunk * 12, ids.begin() + chunk * 12 + 12);
    part[0] = 1;
    const Tensor logits = model_.logits(part);
    for (size_t i = 6; i < 11; ++i) {
      nll.push_back(-log_probabilities(logits, static_cast<int64_t>(i))[part[i + 1]]);
    }
  }
  double mean = 0;
  double square = 0;
  for (const double x : nll) mean += x / 15;
  for (const double x : nll) square += x * x / 15;
  PerplexityOptions options;
  options.context = 12;
  options.bos = 1;
  for (const int64_t batch_tokens : {1, 24, 4096}) {
    options.batch_tokens = batch_tokens;
    const PerplexityResult result = perplexity(model_, ids, options);
    EXPECT_EQ(result.tokens, 15);
    EXPECT_EQ(result.chunks, 3);
    EXPECT_NEAR(result.perplexity.mean, std::exp(mean), 1e-4);
    EXPECT_NEAR(result.perplexity.error, std::sqrt((square - mean * mean) / 14) * std::exp(mean),
                1e-4);
    EXPECT_FALSE(result.divergence);
  }
  options.chunks = 2;
  EXPECT_EQ(perplexity(model_, ids, options).tokens, 10);
}

TEST_F(PerplexityTest, SlidingWindowsScoreEachTokenOnce) {
  const std::vector<int32_t> ids = random_ids(31);
  PerplexityOptions options;
  options.context = 12;
  options.windows = Windows::sliding;
  options.stride = 5;
  // Windows [0, 12), [5, 17), [10, 22), [15, 27), [20, 31).
  double sum = 0;
  int64_t scored = 1;
  for (int64_t begin = 0; scored < 31; begin += 5) {
    const int64_t end = std::min<int64_t>(begin + 12, 31);
    const Tensor logits =
        model_.logits(std::span(ids).subspan(static_cast<size_t>(begin), end - begin));
    for (; scored < end; ++scored) {
      sum -= log_probabilities(logits, scored - 1 - begin)[ids[scored]];
    }
  }
  const PerplexityResult result = perplexity(model_, ids, options);
  EXPECT_EQ(result.tokens, 30);
  EXPECT_NEAR(result.perplexity.mean, std::exp(sum / 30), 1e-4);

  // Windows side by side: their first tokens have nothing before them.
  options.stride = 0;
  const PerplexityResult apart = perplexity(model_, ids, options);
  EXPECT_EQ(apart.tokens, 28);
  EXPECT_EQ(apart.chunks, 3);
}

/// float32 changes next to nothing; what narrower ones change is small and is seen.
TEST_F(PerplexityTest, ThroughACache) {
  const std::vector<int32_t> ids = random_ids(60);
  PerplexityOptions options;
  options.context = 12;
  const double plain = perplexity(model_, ids, options).perplexity.mean;
  const auto change = [&](CacheType cache) {
    options.cache = cache;
    options.batch_tokens = 24;  // two chunks, and one that is left
    return std::abs(perplexity(model_, ids, options).perplexity.mean - plain) / plain;
  };
  EXPECT_LT(change(CacheType::f32), 1e-5);
  EXPECT_LT(change(CacheType::int8), 1e-2);
  EXPECT_GT(change(CacheType::int8), 1e-6);
  EXPECT_GT(change(CacheType::f16), 1e-8);
  // A reference is read as it is.
  const PerplexityResult both = perplexity(model_, ids, options, &model_);
  EXPECT_GT(both.divergence->kl.mean, 0);
}

TEST_F(PerplexityTest, DivergenceFromAReference) {
  const std::vector<int32_t> ids = random_ids(24);
  PerplexityOptions options;
  options.context = 12;
  std::vector<double> kl;
  double same = 0;
  for (size_t chunk = 0; chunk < 2; ++chunk) {
    const auto part = std::span(ids).subspan(chunk * 12, 12);
    const Tensor own = model_.logits(part);
    const Tensor reference = other_.logits(part);
    for (int64_t i = 6; i < 11; ++i) {
      const auto p = log_probabilities(own, i);
      const auto r = log_probabilities(reference, i);
      double sum = 0;
      for (size_t v = 0; v < p.size(); ++v) sum += std::exp(r[v]) * (r[v] - p[v]);
      kl.push_back(sum);
      same += std::max_element(p.begin(), p.end()) - p.begin() ==
              std::max_element(r.begin(), r.end()) - r.begin();
    }
  }
  std::sort(kl.begin(), kl.end());
  double mean = 0;
  double square = 0;
  for (const double x : kl) mean += x / 10;
  for (const double x : kl) square += x * x / 10;
  const PerplexityResult result = perplexity(model_, ids, options, &other_);
  ASSERT_TRUE(result.divergence);
  const Divergence& d = *result.divergence;
  EXPECT_NEAR(d.kl.mean, mean, 1e-5);
  EXPECT_NEAR(d.kl.error, std::sqrt((square - mean * mean) / 9), 1e-5);
  EXPECT_NEAR(d.kl_median, kl[4], 1e-5);
  EXPECT_NEAR(d.kl_99, kl[9], 1e-5);
  EXPECT_NEAR(d.kl_max, kl[9], 1e-5);
  EXPECT_NEAR(d.same_top.mean, same / 10, 1e-12);
  EXPECT_GT(d.kl.mean, 0.01);
  EXPECT_NEAR(d.reference_perplexity.mean, perplexity(other_, ids, options).perplexity.mean, 1e-4);
  EXPECT_NEAR(d.log_ratio.mean, std::log(result.perplexity.mean / d.reference_perplexity.mean),
              1e-9);

  const PerplexityResult self = perplexity(model_, ids, options, &model_);
  EXPECT_EQ(self.divergence->kl_max, 0);
  EXPECT_EQ(self.divergence->same_top.mean, 1);
  EXPECT_EQ(self.divergence->log_ratio.mean, 0);
}

TEST_F(PerplexityTest, DoesNotDependOnThreads) {
  const std::vector<int32_t> ids = random_ids(100);
  PerplexityOptions options;
  options.context = 20;
  options.threads = 1;
  const PerplexityResult one = perplexity(model_, ids, options);
  options.threads = 3;
  EXPECT_EQ(perplexity(model_, ids, options).perplexity.mean, one.perplexity.mean);
}

TEST_F(PerplexityTest, RefusesWhatMakesNoSense) {
  const std::vector<int32_t> ids = random_ids(20);
  const auto refused = [&](PerplexityOptions options, const LanguageModel* reference = nullptr) {
    try {
      (void)perplexity(model_, ids, options, reference);
    } catch (const Error& e) {
      return e.code() == ErrorCode::invalid_argument;
    }
    return false;
  };
  EXPECT_TRUE(refused({.context = 21}));
  EXPECT_TRUE(refused({.context = 3}));
  EXPECT_TRUE(refused({.context = 10, .windows = Windows::sliding, .stride = 11}));
  std::string config = kLlamaConfig;
  config.replace(config.find("61"), 2, "60");
  const LanguageModel small(tiny_model(folder_ / "small", config));
  EXPECT_TRUE(refused({.context = 10}, &small));
  std::atomic<bool> cancel{true};
  EXPECT_THROW((void)perplexity(model_, ids, {.context = 10}, nullptr, Progress({}, &cancel)),
               Error);
}

TEST(PerplexityAssets, AgreesWithTransformersAndLlamaCpp) {
  const fs::path models = assets();
  if (!fs::exists(models / "novels-7m")) GTEST_SKIP() << "NARROW_ASSETS is absent";
  // transformers in float32, the first token of each chunk replaced by <s>.
  const LanguageModel novels = LanguageModel::open(models / "novels-7m");
  const Tokenizer tokenizer = novels.checkpoint().tokenizer();
  EXPECT_EQ(chunk_bos(tokenizer), 0);
  const auto ids =
      tokenizer.encode(read_text(models / "novels-7m" / "heldout.txt").substr(0, 30000));
  PerplexityOptions options;
  options.chunks = 10;
  options.bos = 0;
  EXPECT_NEAR(perplexity(novels, ids, options).perplexity.mean, 54.3141, 2e-3);
  // llama.cpp: [24] of its output with -c 256.
  const LanguageModel stories =
      LanguageModel::open(models / "stories260k" / "stories260k-f32.gguf");
  const Tokenizer spm = stories.checkpoint().tokenizer();
  options.context = 256;
  options.chunks = 24;
  options.bos = chunk_bos(spm);
  EXPECT_EQ(options.bos, 1);
  const std::string text = read_text(models / "text/tinystories/tinystories_sample.txt");
  EXPECT_NEAR(perplexity(stories, spm.encode(text), options).perplexity.mean, 4.0265, 5e-4);
}

}  // namespace
}  // namespace narrow::llm
