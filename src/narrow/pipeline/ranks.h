// SPDX-License-Identifier: Apache-2.0
// Statistics that several processes collect, each over its part of the data.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "narrow/calibrate/observer.h"
#include "narrow/formats/gguf/importance.h"
#include "narrow/train/ranks.h"

namespace narrow {

/// The group that the environment describes (train::rank_place), or null for a process of its own.
/// Throws what the training library throws.
std::unique_ptr<train::Ranks> join_ranks();

/// Every rank gets those of all: merged exactly, in the order of ranks.
Statistics merge_over_ranks(const Statistics& own, train::Ranks& ranks);
void merge_over_ranks(ImportanceFile& statistics, train::Ranks& ranks);

/// This rank's chunks of a text of `ids`, whole ones, in order; as many ids as make them.
std::span<const int32_t> own_chunks(std::span<const int32_t> ids, int64_t context, int64_t chunks,
                                    const train::Ranks& ranks);

}  // namespace narrow
