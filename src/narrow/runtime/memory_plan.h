// SPDX-License-Identifier: Apache-2.0
// Places buffers with known lifetimes in one arena, so that those alive together never overlap.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace narrow {

inline constexpr size_t kArenaAlignment = 64;  // one cache line, one 512-bit vector

struct BufferLife {
  size_t bytes = 0;
  int first = 0;  // the steps [first, last] need it
  int last = 0;
};

struct MemoryPlan {
  std::vector<size_t> offsets;  // multiples of kArenaAlignment
  size_t arena_bytes = 0;
};

/// Greedy by size: the largest buffer first, each into the smallest gap that fits between those
/// placed before and alive at the same time. Each gets a spare vector behind it, so that a kernel
/// that reads a whole vector at the tail touches nothing that another step writes.
MemoryPlan plan_memory(std::span<const BufferLife> buffers);

}  // namespace narrow
