// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/memory.h"

#include <gtest/gtest.h>

#include "llm/tiny_model.h"
#include "narrow/core/error.h"
#include "narrow/llm/language_model.h"

namespace narrow::llm {
namespace {

using namespace narrow::llm::testing;

TEST(LlmMemory, CacheIsWhatASequenceHolds) {
  TemporaryFolder folder;
  for (const auto& [name, config] : tiny_configs()) {
    if (name == "bert") continue;
    const LanguageModel model(tiny_model(folder / name, config));
    for (const CacheType cache : {CacheType::f32, CacheType::f16, CacheType::int8}) {
      GraphOptions options;
      options.cache = cache;
      options.capacity = 24;
      const Session session = model.make_session(options);
      const uint64_t bytes = cache_bytes(model.config(), cache, 24);
      EXPECT_EQ(session.make_state({{"batch", 1}}).bytes(), bytes);
      MemoryPlan plan;
      plan.cache = cache;
      plan.capacity = 24;
      plan.sequences = 3;
      EXPECT_EQ(memory_need(model.checkpoint(), plan).cache_bytes, 3 * bytes);
    }
  }
}

TEST(LlmMemory, PackedWeightsAreWhatTheSessionHolds) {
  TemporaryFolder folder;
  for (const auto& config : {kLlamaConfig, kGemma3Config}) {  // an output matrix, a tied embedding
    const Checkpoint hf = tiny_model(folder / "m", config);
    for (const BlockType type : {BlockType::q8_0, BlockType::q4_0, BlockType::f16}) {
      write_gguf(folder / "m.gguf", hf, type);
      const LanguageModel model = LanguageModel::open(folder / "m.gguf");
      for (const bool repack : {true, false}) {
        const Session session = model.make_session({}, {.repack = repack});
        MemoryPlan plan;
        plan.repack = repack;
        plan.capacity = 8;
        const MemoryNeed need = memory_need(model.checkpoint(), plan);
        session.plan({{1, 8}, {1}});
        EXPECT_EQ(need.packed_bytes, session.memory().packed_bytes);
        EXPECT_EQ(need.packed_bytes > 0, repack && type != BlockType::f16);
        uint64_t stored = 0;
        for (const CheckpointTensor& t : model.checkpoint().tensors()) stored += t.bytes();
        if (need.packed_bytes == 0) {
          EXPECT_EQ(need.mapped_bytes, stored);
        } else {
          EXPECT_LT(need.mapped_bytes, stored);
        }
      }
    }
  }
}

TEST(LlmMemory, StoredAndPackedWeightsGiveTheSameLogits) {
  TemporaryFolder folder;
  const std::vector<int32_t> ids{1, 5, 9, 33, 60, 2, 2, 17, 4, 8, 12, 40};
  for (const auto& config : {kLlamaConfig, kGemma3Config, kGpt2Config}) {
    const Checkpoint hf = tiny_model(folder / "hf", config, DType::float16);
    std::vector<LanguageModel> models{LanguageModel(hf)};
    for (const BlockType type : {BlockType::q8_0, BlockType::q5_1}) {
      const fs::path file = folder / (std::string(to_string(type)) + ".gguf");
      write_gguf(file, hf, type);
      models.push_back(LanguageModel::open(file));
    }
    for (const LanguageModel& model : models) {
      Tensor logits[2];
      for (const bool repack : {true, false}) {
        const CachedDecoder decoder(model, {.capacity = 16, .repack = repack});
        Sequence sequence = decoder.start();
        (void)decoder.feed(sequence, std::span(ids).first(9));
        (void)decoder.feed(sequence, std::span(ids).subspan(9, 2));
        logits[repack] = decoder.feed(sequence, std::span(ids).subspan(11));
      }
      EXPECT_TRUE(identical(logits[0], logits[1]));
    }
  }
}

TEST(LlmMemory, WorkIsAboutTheArena) {
  TemporaryFolder folder;
  for (const auto& config : {kLlamaConfig, kGemma3Config, kGpt2Config}) {
    const LanguageModel model(tiny_model(folder / "m", config));
    GraphOptions options;
    options.cache = CacheType::f16;
    options.capacity = 64;
    options.first_logit = kLastLogit;
    const Session session = model.make_session(options);
    State state = session.make_state({{"batch", 1}});
    Tensor position(DType::int64, {1});
    (void)session.run({ids_tensor(std::vector<int32_t>(48, 3), 1), position}, state);
    MemoryPlan plan;
    plan.cache = CacheType::f16;
    plan.capacity = 64;
    plan.tokens = 48;
    const MemoryNeed need = memory_need(model.checkpoint(), plan);
    EXPECT_GT(need.work_bytes, session.memory().arena_bytes / 2);
    EXPECT_LT(need.work_bytes, session.memory().arena_bytes * 3);
  }
}

std::string refusal(const MemoryNeed& need, const MemoryPlan& plan, uint64_t available) {
  try {
    check_memory(need, plan, available);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::resource_exhausted);
    return std::string(error.what()) + " " + error.hint();
  }
  return "";
}

TEST(LlmMemory, WhatCannotFitIsRefused) {
  constexpr uint64_t kMB = 1000000;
  MemoryPlan plan;
  plan.cache = CacheType::f16;
  plan.capacity = 4096;
  MemoryNeed need;
  need.mapped_bytes = 900 * kMB;  // the system can drop them
  need.packed_bytes = 100 * kMB;
  need.cache_bytes = 300 * kMB;
  need.work_bytes = 10 * kMB;
  EXPECT_EQ(refusal(need, plan, 410 * kMB), "");
  const std::string cache = refusal(need, plan, 400 * kMB);
  EXPECT_NE(cache.find("4096 tokens take 300.0 MB of 410.0 MB, 400.0 MB are available"),
            std::string::npos)
      << cache;
  EXPECT_NE(cache.find("--kv-cache int8"), std::string::npos);
  plan.cache = CacheType::int8;
  EXPECT_EQ(refusal(need, plan, kMB).find("--kv-cache"), std::string::npos);
  need.cache_bytes = 50 * kMB;
  EXPECT_NE(refusal(need, plan, kMB).find("--no-repack"), std::string::npos);
  need.work_bytes = 700 * kMB;
  EXPECT_NE(refusal(need, plan, kMB).find("--batch-tokens"), std::string::npos);
}

TEST(LlmMemory, ADecoderThatCannotFitIsRefusedBeforeItIsLoaded) {
  TemporaryFolder folder;
  const LanguageModel model(tiny_model(folder / "m", kLlamaConfig));
  try {
    const CachedDecoder decoder(model, {.capacity = int64_t{1} << 40});
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::resource_exhausted) << error.what();
    EXPECT_NE(std::string(error.what()).find("keys and values"), std::string::npos);
  }
}

}  // namespace
}  // namespace narrow::llm
