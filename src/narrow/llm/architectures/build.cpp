// SPDX-License-Identifier: Apache-2.0
// The table of builders. What differs between architectures of one row is in their configs.
#include "narrow/llm/architectures/build.h"

#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/graph/pass.h"
#include "narrow/graph/passes/passes.h"
#include "narrow/llm/architectures/model_builder.h"

namespace narrow::llm {
namespace {

struct BuilderRow {
  std::string_view architecture;
  Graph (*build)(const Checkpoint&, const GraphOptions&);
};

constexpr BuilderRow kBuilders[] = {
    {"llama", build_decoder},  {"qwen2", build_decoder},  {"qwen3", build_decoder},
    {"gemma2", build_decoder}, {"gemma3", build_decoder}, {"gpt2", build_decoder},
    {"bert", build_encoder},
};

void check_options(const ModelConfig& c, const GraphOptions& options) {
  if (options.capacity < 0 || options.first_logit < kLastLogit) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("capacity {}, first_logit {}", options.capacity, options.first_logit));
  }
  if (c.positions == PositionKind::learned && options.capacity > c.context) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the model has {} positions, not {}", c.context, options.capacity),
                fmt::format("ask for a context of at most {}", c.context));
  }
}

}  // namespace

const char* to_string(CacheType type) {
  static constexpr const char* kNames[] = {"none", "f32", "f16", "int8"};
  return kNames[static_cast<size_t>(type)];
}

uint64_t cache_bytes(const ModelConfig& config, CacheType type, int64_t tokens) {
  const auto width = static_cast<uint64_t>(config.head_dim);
  const uint64_t block = kCacheBlock;
  uint64_t head = 0;  // bytes of its numbers
  if (type == CacheType::f32) head = 4 * width;
  if (type == CacheType::f16) head = 2 * width;
  if (type == CacheType::int8) head = width + (width + block - 1) / block * sizeof(float);
  const auto heads = static_cast<uint64_t>(config.layers * config.kv_heads) * 2;
  return heads * head * static_cast<uint64_t>(tokens);
}

Graph build_graph(const Checkpoint& checkpoint, const GraphOptions& options) {
  const ModelConfig& config = checkpoint.config();
  check_options(config, options);
  for (const BuilderRow& row : kBuilders) {
    if (row.architecture != config.architecture) continue;
    Graph graph = row.build(checkpoint, options);
    if (options.form == GraphForm::session && options.activations == Activations::quantized) {
      infer_shapes(graph);  // the pass asks for them
      quantize_activations(graph, {});
    }
    return graph;
  }
  throw Error(ErrorCode::unsupported,
              fmt::format("there is no graph for the architecture '{}'", config.architecture));
}

std::vector<StatePair> state_pairs(const ModelConfig& config, const GraphOptions& options) {
  std::vector<StatePair> pairs;
  if (options.cache == CacheType::none) return pairs;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (const char* kind : {"cache_k", "cache_v"}) {
      const std::string name = fmt::format("{}.{}", kind, layer);
      pairs.push_back({name, name + "_next"});
      if (options.cache != CacheType::int8) continue;
      pairs.push_back({name + ".scale", name + ".scale_next"});
    }
  }
  return pairs;
}

}  // namespace narrow::llm
