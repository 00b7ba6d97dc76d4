// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/ranks.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/train/library.h"

namespace narrow {

std::unique_ptr<train::Ranks> join_ranks() {
  const auto place = train::rank_place();
  return place ? train::load_plugin().join(*place) : nullptr;
}

Statistics merge_over_ranks(const Statistics& own, train::Ranks& ranks) {
  const std::vector<std::string> all = ranks.gather(statistics_to_json(own));
  Statistics merged = statistics_from_json(all.at(0));
  for (size_t i = 1; i < all.size(); ++i) merged.merge(statistics_from_json(all[i]));
  return merged;
}

void merge_over_ranks(ImportanceFile& statistics, train::Ranks& ranks) {
  // The same matrices in the same order everywhere: one model.
  for (auto& [name, entry] : statistics.entries) {
    ranks.sum(entry.sums);
    ranks.sum(entry.counts);
  }
  uint32_t chunks = 0;
  for (const std::string& count : ranks.gather(std::to_string(statistics.chunk_count))) {
    chunks += static_cast<uint32_t>(std::stoul(count));
  }
  statistics.chunk_count = chunks;
}

std::span<const int32_t> own_chunks(std::span<const int32_t> ids, int64_t context, int64_t chunks,
                                    const train::Ranks& ranks) {
  int64_t total = static_cast<int64_t>(ids.size()) / context;
  if (chunks > 0) total = std::min(total, chunks);
  if (total < ranks.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the text has {} chunks of {} tokens for {} processes", total, context,
                            ranks.size()),
                "give more text, a smaller --context, or fewer processes");
  }
  const int64_t first = total * ranks.rank() / ranks.size();
  const int64_t end = total * (ranks.rank() + 1) / ranks.size();
  return ids.subspan(static_cast<size_t>(first * context),
                     static_cast<size_t>((end - first) * context));
}

}  // namespace narrow
