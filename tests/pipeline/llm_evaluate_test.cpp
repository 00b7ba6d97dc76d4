// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/llm_evaluate.h"

#include <functional>

#include "narrow/core/error.h"
#include "narrow/pipeline/llm_quantize.h"
#include "support.h"

namespace narrow {
namespace {

using testing::TemporaryFolder;

const std::filesystem::path kModel = std::filesystem::path(NARROW_SOURCE_DIR) / "assets/novels-7m";
const std::filesystem::path kTiny = std::filesystem::path(NARROW_SOURCE_DIR) / "tests/goldens/llm";

std::string some_text() {
  std::string text;
  for (int i = 0; i < 20; ++i) {
    text += "It was a dark evening, and the " + std::to_string(i) + " guests had gone home.\n";
  }
  return text;
}

class LlmEvaluationTest : public ::testing::Test {
 protected:
  LlmQuantizeJob job(const char* format) const {
    LlmQuantizeJob j;
    j.model = kModel;
    j.output = folder_ / "q.gguf";
    j.format = format;
    j.method = WeightMethod::rtn;
    j.evaluation.emplace();
    j.evaluation->text = some_text();
    j.evaluation->data = "text:some";
    j.evaluation->context = 64;
    j.evaluation->chunks = 2;
    return j;
  }
  void expect_error(const std::function<void()>& act, ErrorCode code, const char* part) const {
    try {
      act();
      ADD_FAILURE() << "no error about " << part;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
    EXPECT_TRUE(folder_.names().empty()) << "something was written";
  }
  TemporaryFolder folder_;
};

TEST_F(LlmEvaluationTest, IsThatOfTheFileBesideItsSource) {
  const LlmQuantizeJob j = job("q4_0");
  const WeightsReport r = run_llm_quantize(j);
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"q.gguf"});
  ASSERT_TRUE(r.evaluation.has_value());
  const auto source = llm::LanguageModel::open(kModel);
  const auto written = llm::LanguageModel::open(j.output);
  const llm::Tokenizer tokenizer = written.checkpoint().tokenizer();
  llm::PerplexityOptions options;
  options.context = 64;
  options.chunks = 2;
  options.bos = llm::chunk_bos(tokenizer);
  const llm::PerplexityResult expected =
      llm::perplexity(written, tokenizer.encode(some_text()), options, &source);
  const llm::PerplexityResult& got = r.evaluation->result;
  EXPECT_EQ(got.perplexity.mean, expected.perplexity.mean);
  EXPECT_EQ(got.tokens, 2 * 31);
  EXPECT_EQ(got.divergence->kl.mean, expected.divergence->kl.mean);
  EXPECT_GT(got.divergence->kl.mean, 1e-4);
  EXPECT_GT(got.divergence->kl.error, 0);
  EXPECT_EQ(got.divergence->same_top.mean, expected.divergence->same_top.mean);
  EXPECT_NE(got.perplexity.mean, got.divergence->reference_perplexity.mean);
  ASSERT_EQ(r.stages.size(), 2u);
  EXPECT_EQ(r.stages.back().stage, "evaluate");
  EXPECT_TRUE(r.refusal.empty());
}

TEST_F(LlmEvaluationTest, TheGateLeavesNothing) {
  for (const bool kl : {true, false}) {
    LlmQuantizeJob j = job("q2_k");
    (kl ? j.evaluation->max_kl : j.evaluation->max_drop) = 1e-5;
    try {
      run_llm_quantize(j);
      ADD_FAILURE() << "q2_k lost nothing";
    } catch (const WeightsBelowTarget& e) {
      EXPECT_EQ(e.code(), ErrorCode::quality_below_target);
      EXPECT_EQ(e.report().refusal, e.message());
      EXPECT_NE(e.message().find(kl ? "KL" : "most likely token"), std::string::npos);
      EXPECT_TRUE(e.report().output.empty());
      EXPECT_GT(e.report().output_bytes, 1000000u);
      EXPECT_GT(e.report().peak_rss_bytes, 0u);
      EXPECT_TRUE(e.report().evaluation->result.divergence.has_value());
    }
    EXPECT_TRUE(folder_.names().empty());
  }
  LlmQuantizeJob j = job("q2_k");
  j.evaluation->max_kl = 20;
  j.evaluation->max_drop = 100;
  EXPECT_TRUE(run_llm_quantize(j).refusal.empty());
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"q.gguf"});
}

TEST_F(LlmEvaluationTest, WhatCannotBeEvaluatedIsKnownBefore) {
  LlmQuantizeJob j = job("q4_0");
  j.max_memory = uint64_t{1} << 30;
  expect_error([&] { run_llm_quantize(j); }, ErrorCode::invalid_argument, "limit of memory");
  j.max_memory = 0;
  j.evaluation->text = "Too short.";
  expect_error([&] { run_llm_quantize(j); }, ErrorCode::invalid_argument, "a chunk takes 64");
  j = job("q8_0");
  j.model = kTiny / "bert";
  expect_error([&] { run_llm_quantize(j); }, ErrorCode::unsupported, "encoder");
  j.model = kTiny / "llama2";
  expect_error([&] { run_llm_quantize(j); }, ErrorCode::not_found, "tokenizer");
}

}  // namespace
}  // namespace narrow
