// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/speed.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "narrow/core/error.h"

namespace narrow::llm {
namespace {

const std::string kModel = std::string(NARROW_SOURCE_DIR) + "/assets/novels-7m";

TEST(SpeedTest, DecodesTheMostLikelyTokensAndCountsBytes) {
  const LanguageModel model = LanguageModel::open(kModel);
  SpeedOptions options;
  options.prompt_tokens = 5;
  options.new_tokens = 4;
  options.rounds = 2;
  options.decoder.threads = 1;
  const SpeedResult r = measure_speed(model, options);
  EXPECT_EQ(r.threads, 1);
  EXPECT_GT(r.prefill_tokens_per_second, 0);
  EXPECT_GT(r.decode_tokens_per_second, 0);
  // Embedding (tied: it is the output matrix), layers and norms in bfloat16, norms in float32 or
  // bfloat16 as the file has them; 7 tokens of cache.
  uint64_t all = 0;
  for (const CheckpointTensor& t : model.checkpoint().tensors()) all += t.bytes();
  EXPECT_EQ(weight_bytes_per_token(model.checkpoint()), all);
  EXPECT_EQ(r.bytes_per_token, all + 7u * 8 * 128 * 2 * 2);
  ASSERT_EQ(r.ids.size(), 4u);

  // The first is the most likely after the prompt, whatever the rounds.
  options.rounds = 1;
  EXPECT_EQ(measure_speed(model, options).ids, r.ids);
}

TEST(SpeedTest, RefusesWhatDoesNotFit) {
  const LanguageModel model = LanguageModel::open(kModel);
  SpeedOptions options;
  options.prompt_tokens = 500;
  options.new_tokens = 13;
  EXPECT_THROW(measure_speed(model, options), Error);
  options.new_tokens = 0;
  EXPECT_THROW(measure_speed(model, options), Error);
}

}  // namespace
}  // namespace narrow::llm
