// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/memory.h"
#include "narrow/kernels/block_gemm.h"

namespace narrow::llm {
namespace {

uint64_t product(int64_t a, int64_t b) {
  return static_cast<uint64_t>(a) * static_cast<uint64_t>(b);
}

/// Looked up, or small and copied.
bool is_table(const CheckpointTensor& t) {
  return t.name == "token_embd.weight" || t.name == "position_embd.weight" ||
         t.name == "token_types.weight";
}

/// Bytes of a matrix in the kernels' layout; 0 where it is read in the file.
uint64_t packed_bytes(const CheckpointTensor& t, const MemoryPlan& plan) {
  if (t.dims.size() < 2) return 0;
  if (t.type == BlockType::f32) return t.bytes();
  if (!plan.repack) return 0;
  if (!kernels::refuse_blocks(t.type).empty()) {
    return t.difference == Difference::transposed ? t.bytes() : 0;
  }
  return kernels::packed_block_bytes(t.type, t.rows(), t.columns());
}

/// Floats of the widest place of a layer, and the quantized copy of what enters a product.
uint64_t work_bytes(const ModelConfig& c, const MemoryPlan& plan) {
  const int64_t tokens = plan.sequences * plan.tokens;
  const int64_t ffn = (c.gated ? 3 : 2) * c.intermediate_size;
  const int64_t attention = 3 * c.q_size() + 4 * c.kv_size();
  const int64_t wide = 2 * c.hidden_size + std::max(ffn, attention);
  uint64_t bytes = product(tokens, wide * 4 + std::max(c.intermediate_size, c.hidden_size) * 2);
  bytes += product(plan.sequences * plan.logit_rows, c.vocab_size) * (c.logit_softcap > 0 ? 8 : 4);
  if (c.positions == PositionKind::rope) {
    bytes += product(plan.capacity, c.rope_dim) * 4 * (c.rope_theta_local != 0 ? 2 : 1);
  }
  return bytes;
}

}  // namespace

MemoryNeed memory_need(const Checkpoint& checkpoint, const MemoryPlan& plan) {
  const ModelConfig& config = checkpoint.config();
  MemoryNeed need;
  for (const CheckpointTensor& t : checkpoint.tensors()) {
    const bool table = is_table(t);
    const bool multiplied =
        !table || (t.name == "token_embd.weight" && config.tied_embedding && config.causal);
    const uint64_t packed = multiplied ? packed_bytes(t, plan) : 0;
    need.packed_bytes += packed;
    if (table || packed == 0) need.mapped_bytes += t.bytes();
  }
  need.cache_bytes = cache_bytes(config, plan.cache, plan.capacity * plan.sequences);
  need.work_bytes = work_bytes(config, plan);
  return need;
}

void check_memory(const MemoryNeed& need, const MemoryPlan& plan, uint64_t available) {
  if (need.total() <= available) return;
  const std::string have = fmt::format("{} are available", format_bytes(available));
  const bool cache = need.cache_bytes >= need.packed_bytes && need.cache_bytes >= need.work_bytes;
  if (cache) {
    throw Error(ErrorCode::resource_exhausted,
                fmt::format("keys and values of {} tokens take {} of {}, {}", plan.capacity,
                            format_bytes(need.cache_bytes), format_bytes(need.total()), have),
                plan.cache == CacheType::int8
                    ? "ask for a shorter context (--context)"
                    : "ask for a shorter context (--context), or --kv-cache int8");
  }
  throw Error(ErrorCode::resource_exhausted,
              fmt::format("the model takes {} (weights {}, cache {}, work {}), {}",
                          format_bytes(need.total()), format_bytes(need.packed_bytes),
                          format_bytes(need.cache_bytes), format_bytes(need.work_bytes), have),
              need.work_bytes > need.packed_bytes
                  ? "run fewer tokens at once (--batch-tokens, --context)"
                  : "leave the weights in the file (--no-repack), or quantize to a smaller format");
}

}  // namespace narrow::llm
