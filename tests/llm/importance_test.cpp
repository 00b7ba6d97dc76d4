// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/importance.h"

#include <gtest/gtest.h>

#include <cmath>

#include "narrow/core/error.h"

namespace narrow::llm {
namespace {

const std::string kModel = std::string(NARROW_SOURCE_DIR) + "/assets/novels-7m";
constexpr int64_t kContext = 16;

std::vector<int32_t> some_ids(size_t count) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 37 + 11) % 4000));
  return ids;
}

ImportanceFile collected(const LanguageModel& model, std::span<const int32_t> ids, int threads,
                         int64_t chunks = 0, ImportanceFile before = {}) {
  ImportanceOptions options;
  options.context = kContext;
  options.chunks = chunks;
  options.threads = threads;
  collect_importance(model, ids, options, before);
  return before;
}

TEST(ImportanceTest, IsTheMeanSquareOfWhatMeetsAMatrix) {
  const LanguageModel model = LanguageModel::open(kModel);
  const auto ids = some_ids(kContext);
  const ImportanceFile file = collected(model, ids, 1);
  EXPECT_EQ(file.entries.size(), 8u * 7);
  EXPECT_EQ(file.chunk_count, 1u);
  // What meets the first layer's query is known without running it: the normed embedding.
  const Checkpoint& c = model.checkpoint();
  const auto width = static_cast<size_t>(c.config().hidden_size);
  std::vector<float> row(width);
  const Tensor norm = c.read("blk.0.attn_norm.weight");
  std::vector<double> expected(width, 0.0);
  for (const int32_t id : ids) {
    c.read_rows("token_embd.weight", id, 1, row);
    double square = 0;
    for (const float x : row) square += static_cast<double>(x) * static_cast<double>(x);
    const double scale = 1 / std::sqrt(square / static_cast<double>(width) + c.config().norm_eps);
    for (size_t k = 0; k < width; ++k) {
      const double x =
          static_cast<double>(row[k]) * scale * static_cast<double>(norm.data<float>()[k]);
      expected[k] += x * x / static_cast<double>(kContext);
    }
  }
  const std::vector<float> found = file.entries.at("blk.0.attn_q.weight").mean_squares();
  ASSERT_EQ(found.size(), width);
  for (size_t k = 0; k < width; ++k) EXPECT_NEAR(found[k], expected[k], 1e-4 * expected[k] + 1e-9);
  EXPECT_EQ(file.entries.at("blk.0.attn_k.weight").sums,
            file.entries.at("blk.0.attn_q.weight").sums);
  EXPECT_EQ(file.entries.at("blk.0.ffn_down.weight").columns(), 768u);
}

TEST(ImportanceTest, GoesOnWhereItStoppedForAnyNumberOfThreads) {
  const LanguageModel model = LanguageModel::open(kModel);
  const auto ids = some_ids(3 * kContext + 5);
  const ImportanceFile once = collected(model, ids, 1);
  EXPECT_EQ(once.chunk_count, 3u);
  const ImportanceFile twice = collected(model, ids, 2, 0, collected(model, ids, 2, 1));
  for (const auto& [name, entry] : once.entries) {
    EXPECT_EQ(twice.entries.at(name).sums, entry.sums) << name;
    EXPECT_EQ(twice.entries.at(name).counts, entry.counts) << name;
  }
}

TEST(ImportanceTest, MergesAndRefuses) {
  const LanguageModel model = LanguageModel::open(kModel);
  ImportanceFile a = collected(model, some_ids(kContext), 1);
  const ImportanceFile b = a;
  merge_importance(a, b);
  EXPECT_EQ(a.chunk_count, 2u);
  const std::string name = "blk.3.ffn_up.weight";
  EXPECT_EQ(a.entries.at(name).sums[5], 2 * b.entries.at(name).sums[5]);
  EXPECT_EQ(a.entries.at(name).mean_squares(), b.entries.at(name).mean_squares());
  ImportanceFile other = b;
  other.entries.at(name).sums.resize(8);
  EXPECT_THROW(merge_importance(a, other), Error);
  EXPECT_THROW(collected(model, some_ids(2 * kContext), 1, 0, other), Error);
  EXPECT_THROW(collected(model, some_ids(kContext - 1), 1), Error);
}

}  // namespace
}  // namespace narrow::llm
