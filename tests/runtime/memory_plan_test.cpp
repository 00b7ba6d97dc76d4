// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "narrow/core/rng.h"

namespace narrow {
namespace {

/// No two buffers alive at one step share a byte, and each has a vector of its own behind it.
void expect_disjoint(const std::vector<BufferLife>& buffers, const MemoryPlan& plan) {
  for (size_t a = 0; a < buffers.size(); ++a) {
    const size_t end_a = plan.offsets[a] + buffers[a].bytes + kArenaAlignment;
    EXPECT_EQ(plan.offsets[a] % kArenaAlignment, 0u);
    EXPECT_LE(end_a, plan.arena_bytes);
    for (size_t b = a + 1; b < buffers.size(); ++b) {
      if (buffers[a].first > buffers[b].last || buffers[b].first > buffers[a].last) continue;
      const size_t end_b = plan.offsets[b] + buffers[b].bytes + kArenaAlignment;
      EXPECT_TRUE(end_a <= plan.offsets[b] || end_b <= plan.offsets[a]) << a << " and " << b;
    }
  }
}

size_t peak(const std::vector<BufferLife>& buffers, int steps) {
  size_t most = 0;
  for (int k = 0; k < steps; ++k) {
    size_t alive = 0;
    for (const BufferLife& b : buffers) alive += b.first <= k && k <= b.last ? b.bytes : 0;
    most = std::max(most, alive);
  }
  return most;
}

TEST(MemoryPlan, RandomLifetimesNeverOverlap) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    const int steps = 1 + static_cast<int>(rng.below(40));
    std::vector<BufferLife> buffers(rng.below(60));
    for (BufferLife& b : buffers) {
      b.bytes = rng.below(4) == 0 ? rng.below(3) : rng.below(100000);
      b.first = static_cast<int>(rng.below(static_cast<uint64_t>(steps)));
      b.last = b.first + static_cast<int>(rng.below(static_cast<uint64_t>(steps - b.first)));
    }
    const MemoryPlan plan = plan_memory(buffers);
    expect_disjoint(buffers, plan);
    EXPECT_GE(plan.arena_bytes, peak(buffers, steps));
  }
}

TEST(MemoryPlan, ChainNeedsTwoNeighbours) {
  std::vector<BufferLife> chain;
  for (int k = 0; k < 50; ++k) chain.push_back({1 << 16, k, k + 1});
  const MemoryPlan plan = plan_memory(chain);
  expect_disjoint(chain, plan);
  EXPECT_EQ(plan.arena_bytes, 2 * ((1 << 16) + kArenaAlignment));
}

TEST(MemoryPlan, FillsTheSmallestGap) {
  // Gaps of 1000 and 500 padded bytes open up; the late small buffer takes the second.
  const std::vector<BufferLife> buffers = {{6400, 0, 9}, {3200, 0, 1}, {3100, 0, 9},
                                           {1600, 0, 1}, {1500, 0, 9}, {1400, 5, 6}};
  const MemoryPlan plan = plan_memory(buffers);
  expect_disjoint(buffers, plan);
  EXPECT_EQ(plan.offsets[5], plan.offsets[3]);
}

TEST(MemoryPlan, Nothing) {
  EXPECT_EQ(plan_memory({}).arena_bytes, 0u);
}

}  // namespace
}  // namespace narrow
