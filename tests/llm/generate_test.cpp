// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "llm/tiny_model.h"
#include "narrow/core/error.h"

namespace narrow::llm {
namespace {

using namespace narrow::llm::testing;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// How often each token comes in many draws.
std::map<int32_t, double> shares(const SamplingOptions& options, const std::vector<float>& logits,
                                 const std::vector<int32_t>& seen = {}) {
  Sampler sampler(options);
  std::map<int32_t, double> counts;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) counts[sampler.pick(logits, seen)] += 1.0 / kDraws;
  return counts;
}

SamplingOptions plain() {
  return {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0};
}

const std::vector<float> kLogits{std::log(0.1F), std::log(0.4F), std::log(0.05F), std::log(0.3F),
                                 std::log(0.15F)};

TEST(SamplerTest, DrawsByProbability) {
  const auto s = shares(plain(), kLogits);
  // Six standard deviations of a share of 20,000 draws.
  EXPECT_NEAR(s.at(1), 0.4, 0.021);
  EXPECT_NEAR(s.at(3), 0.3, 0.02);
  EXPECT_NEAR(s.at(2), 0.05, 0.01);
  SamplingOptions hot = plain();
  hot.temperature = 0.5;  // probabilities squared
  const double total = 0.01 + 0.16 + 0.0025 + 0.09 + 0.0225;
  EXPECT_NEAR(shares(hot, kLogits).at(1), 0.16 / total, 0.022);
}

TEST(SamplerTest, FiltersKeepTheMostLikely) {
  SamplingOptions o = plain();
  o.top_k = 2;
  auto s = shares(o, kLogits);
  EXPECT_EQ(s.size(), 2u);
  EXPECT_NEAR(s.at(1), 4.0 / 7, 0.022);
  o = plain();
  o.top_p = 0.75;  // 0.4 + 0.3 < 0.75
  s = shares(o, kLogits);
  EXPECT_EQ(s.size(), 3u);
  EXPECT_TRUE(s.contains(4));
  o = plain();
  o.min_p = 0.3;  // at least 0.12
  s = shares(o, kLogits);
  EXPECT_EQ(s.size(), 3u);
  EXPECT_FALSE(s.contains(0));
  o.top_p = 0;
  EXPECT_EQ(shares(o, kLogits).size(), 1u);
}

TEST(SamplerTest, GreedyTakesTheFirstOfEquals) {
  SamplingOptions o;
  o.temperature = 0;
  Sampler sampler(o);
  EXPECT_EQ(sampler.pick(std::vector<float>{1, 3, 3, 2}, {}), 1);
  EXPECT_EQ(sampler.pick(std::vector<float>{-kInfinity, -5, -4}, {}), 2);
}

TEST(SamplerTest, TheBestOfManyAreTheBest) {
  // More than a block of the search, values that repeat, and zeros of both signs.
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(static_cast<int>(i * 7919 % 101) - 90);
  }
  logits[3] = -0.0F;
  logits[700] = 0.0F;
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  EXPECT_EQ(most_likely(logits), order[0]);
  for (const int64_t k : {1, 2, 5, 15, 16, 40, 999, 1000, 2000}) {
    SamplingOptions o = plain();
    o.top_k = k;
    o.temperature = 100;  // nearly all alike
    const auto found = shares(o, logits);
    const auto kept = static_cast<size_t>(std::min<int64_t>(k, 1000));
    for (size_t i = kept; i < order.size(); ++i) ASSERT_FALSE(found.contains(order[i])) << k;
    if (k > 100) continue;  // each is drawn many times
    for (size_t i = 0; i < kept; ++i) ASSERT_TRUE(found.contains(order[i])) << k;
  }
  EXPECT_EQ(most_likely({}), -1);
  logits[77] = NAN;
  EXPECT_THROW(most_likely(logits), Error);
}

TEST(SamplerTest, PenalizesWhatWasSeenLately) {
  SamplingOptions o;
  o.temperature = 0;
  o.repetition_penalty = 2;
  o.repetition_window = 2;
  Sampler sampler(o);
  const std::vector<float> logits{1.0F, 3.0F, 2.0F, -1.0F};
  EXPECT_EQ(sampler.pick(logits, std::vector<int32_t>{1, 1}), 2);     // 1.5 < 2
  EXPECT_EQ(sampler.pick(logits, std::vector<int32_t>{1, 0, 0}), 1);  // out of the window
  EXPECT_EQ(sampler.pick(logits, std::vector<int32_t>{1, 2}), 1);     // 1.5 > 1
  const std::vector<float> negative{-1.0F, -1.5F};
  EXPECT_EQ(sampler.pick(negative, std::vector<int32_t>{0}), 1);  // -2 < -1.5
}

TEST(SamplerTest, TheSameSeedGivesTheSameTokens) {
  SamplingOptions o = plain();
  const auto draws = [&](uint64_t seed) {
    o.seed = seed;
    Sampler sampler(o);
    std::vector<int32_t> ids;
    for (int i = 0; i < 12; ++i) ids.push_back(sampler.pick(kLogits, {}));
    return ids;
  };
  EXPECT_EQ(draws(5), draws(5));
  EXPECT_NE(draws(5), draws(6));
}

TEST(SamplerTest, RefusesNonsense) {
  EXPECT_THROW(Sampler({.temperature = -1}), Error);
  EXPECT_THROW(Sampler({.top_k = -1}), Error);
  EXPECT_THROW(Sampler({.top_p = 1.5}), Error);
  EXPECT_THROW(Sampler({.min_p = std::nan("")}), Error);
  EXPECT_THROW(Sampler({.repetition_penalty = 0}), Error);
  Sampler sampler({});
  EXPECT_THROW(sampler.pick(std::vector<float>{1, NAN}, {}), Error);
  EXPECT_THROW(sampler.pick(std::vector<float>{-kInfinity, -kInfinity}, {}), Error);
  EXPECT_THROW(sampler.pick({}, {}), Error);
}

TEST(StopFilterTest, HoldsBackWhatMayBeAStop) {
  StopFilter filter({"END", "\n\n", ""});
  EXPECT_EQ(filter.push("one E"), "one ");
  EXPECT_EQ(filter.push("N"), "");
  EXPECT_EQ(filter.push("GINE\n"), "ENGINE");
  EXPECT_EQ(filter.push("x"), "\nx");
  EXPECT_EQ(filter.push("yEN"), "y");
  EXPECT_FALSE(filter.stopped());
  EXPECT_EQ(filter.push("D and more"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.push("more"), "");
  EXPECT_EQ(filter.finish(), "");
  StopFilter open({"END"});
  EXPECT_EQ(open.push("the EN"), "the ");
  EXPECT_EQ(open.finish(), "EN");
}

/// The project's own small model.
class GenerateTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = new LanguageModel(
        LanguageModel::open(fs::path(NARROW_SOURCE_DIR) / "assets" / "novels-7m"));
    tokenizer_ = new Tokenizer(model_->checkpoint().tokenizer());
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    delete model_;
  }

  static GenerateResult run(const GenerateOptions& options, const OnText& on_text = {},
                            int64_t capacity = 64) {
    const CachedDecoder decoder(*model_, {.capacity = capacity});
    Sequence sequence = decoder.start();
    return generate(decoder, sequence, *tokenizer_, tokenizer_->encode("It was a dark"), options,
                    on_text);
  }
  static GenerateOptions greedy(int64_t tokens) {
    GenerateOptions o;
    o.tokens = tokens;
    o.sampling.temperature = 0;
    return o;
  }

  static LanguageModel* model_;
  static Tokenizer* tokenizer_;
};
LanguageModel* GenerateTest::model_ = nullptr;
Tokenizer* GenerateTest::tokenizer_ = nullptr;

TEST_F(GenerateTest, GreedyTakesTheMostLikelyOfTheWholeModel) {
  const GenerateResult r = run(greedy(6));
  ASSERT_EQ(r.ids.size(), 6u);
  EXPECT_EQ(r.finish, Finish::length);
  EXPECT_EQ(r.text, tokenizer_->decode(r.ids));
  std::vector<int32_t> ids = tokenizer_->encode("It was a dark");
  for (const int32_t id : r.ids) {
    const Tensor logits = model_->logits(ids);
    const float* last = logits.data<float>().data() + (logits.dim(0) - 1) * logits.dim(1);
    const float best = *std::max_element(last, last + logits.dim(1));
    EXPECT_NEAR(last[id], best, 0.02);  // the cache has 16 bits
    ids.push_back(id);
  }
}

TEST_F(GenerateTest, StreamsTheTextThatItReturns) {
  GenerateOptions o;
  o.tokens = 30;
  std::string streamed;
  int pieces = 0;
  const GenerateResult r = run(o, [&](std::string_view text) {
    streamed += text;
    ++pieces;
    return true;
  });
  EXPECT_EQ(streamed, r.text);
  EXPECT_GT(pieces, 5);
  EXPECT_EQ(run(o).text, r.text);
  o.sampling.seed = 2;
  EXPECT_NE(run(o).text, r.text);
}

TEST_F(GenerateTest, EndsForEveryReason) {
  const GenerateResult whole = run(greedy(12));
  GenerateOptions o = greedy(12);
  o.stop = {tokenizer_->decode(std::vector<int32_t>{whole.ids[4]})};
  const GenerateResult stopped = run(o);
  EXPECT_EQ(stopped.finish, Finish::stop);
  EXPECT_TRUE(whole.text.starts_with(stopped.text));
  EXPECT_EQ(stopped.text.find(o.stop[0]), std::string::npos);
  EXPECT_LE(stopped.ids.size(), 5u);

  o = greedy(12);
  o.ends = {whole.ids[3]};
  const GenerateResult ended = run(o);
  EXPECT_EQ(ended.finish, Finish::end);
  EXPECT_EQ(ended.ids.back(), whole.ids[3]);
  EXPECT_TRUE(whole.text.starts_with(ended.text));
  o.ignore_ends = true;
  EXPECT_EQ(run(o).ids, whole.ids);

  const auto prompt = static_cast<int64_t>(tokenizer_->encode("It was a dark").size());
  const GenerateResult full = run(greedy(12), {}, prompt + 5);
  EXPECT_EQ(full.finish, Finish::capacity);
  EXPECT_EQ(full.ids.size(), 6u);  // the last one is not read

  const GenerateResult left = run(greedy(12), [](std::string_view) { return false; });
  EXPECT_EQ(left.finish, Finish::cancelled);
  EXPECT_THROW((void)run(greedy(4), {}, prompt - 1), Error);
}

}  // namespace
}  // namespace narrow::llm
