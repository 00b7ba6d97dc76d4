// SPDX-License-Identifier: Apache-2.0
// What a language model will hold in memory, said before it is loaded.
#pragma once

#include <cstdint>
#include <string>

#include "narrow/llm/architectures/build.h"
#include "narrow/llm/checkpoint.h"

namespace narrow::llm {

struct MemoryNeed {
  uint64_t mapped_bytes = 0;  // weights read where they lie in the file: the system may drop them
  uint64_t packed_bytes = 0;  // weights in the kernels' layouts, or copied
  uint64_t cache_bytes = 0;
  uint64_t work_bytes = 0;  // activations, logits, tables of positions: about
  /// What has to fit: all but the mapped file.
  uint64_t total() const { return packed_bytes + cache_bytes + work_bytes; }
};

struct MemoryPlan {
  CacheType cache = CacheType::none;
  int64_t capacity = 0;   // tokens of a sequence
  int64_t sequences = 1;  // with a cache each, or side by side
  int64_t tokens = 1;     // of each sequence at once
  int64_t logit_rows = 1;
  bool repack = true;
};

MemoryNeed memory_need(const Checkpoint& checkpoint, const MemoryPlan& plan);

/// Throws resource_exhausted, naming the largest part, where the need exceeds `available`.
void check_memory(const MemoryNeed& need, const MemoryPlan& plan, uint64_t available);

}  // namespace narrow::llm
