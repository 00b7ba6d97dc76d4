// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/memory_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace narrow {
namespace {

size_t padded(size_t bytes) {
  const size_t with_tail = bytes + kArenaAlignment;
  return (with_tail + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

bool together(const BufferLife& a, const BufferLife& b) {
  return a.first <= b.last && b.first <= a.last;
}

}  // namespace

MemoryPlan plan_memory(std::span<const BufferLife> buffers) {
  MemoryPlan plan;
  plan.offsets.resize(buffers.size(), 0);
  std::vector<size_t> by_size(buffers.size());
  std::iota(by_size.begin(), by_size.end(), size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](size_t a, size_t b) { return buffers[a].bytes > buffers[b].bytes; });
  std::vector<size_t> placed;  // by offset
  for (const size_t index : by_size) {
    const size_t need = padded(buffers[index].bytes);
    size_t best = 0;
    size_t best_gap = std::numeric_limits<size_t>::max();
    size_t end = 0;  // of the neighbours seen so far
    for (const size_t other : placed) {
      if (!together(buffers[index], buffers[other])) continue;
      const size_t begin = plan.offsets[other];
      if (begin > end && begin - end >= need && begin - end < best_gap) {
        best = end;
        best_gap = begin - end;
      }
      end = std::max(end, begin + padded(buffers[other].bytes));
    }
    if (best_gap == std::numeric_limits<size_t>::max()) best = end;
    plan.offsets[index] = best;
    plan.arena_bytes = std::max(plan.arena_bytes, best + need);
    const auto at = std::upper_bound(placed.begin(), placed.end(), best,
                                     [&](size_t o, size_t p) { return o < plan.offsets[p]; });
    placed.insert(at, index);
  }
  return plan;
}

}  // namespace narrow
