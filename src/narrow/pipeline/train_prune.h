// SPDX-License-Identifier: Apache-2.0
// The part of a training job that prunes: which layers, masks without training, what came of it.
// Internal to pipeline/.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/report/prune_report.h"
#include "narrow/train/trainer.h"

namespace narrow {

/// The layers that the options name, among those whose weights are trained.
void plan_pruning(train::TrainPlan& plan, const train::TrainOptions& options);

/// The pruned weights of a run of 0 epochs.
void prune_at_once(const train::TrainPlan& plan, const train::TrainOptions& options,
                   train::TrainState& state);

struct PruneFiles {
  std::filesystem::path source;  // the float model; may be empty
  std::filesystem::path output;  // what was written
};
/// Reads the file back, counts zeros, measures bytes and times. `before` is what would have been
/// written without pruning, `original` the float model.
PruneReport measure_pruned(const PruneFiles& files, const Graph& original, const Graph& before,
                           const std::string& what);

/// Of a language model: the float one, the one that would have been written without pruning, the
/// one that was.
struct PrunedModels {
  const llm::Checkpoint& original;
  const llm::Checkpoint& before;
  const llm::Checkpoint& after;
};
PruneReport measure_pruned(const PrunedModels& models, const std::filesystem::path& output,
                           const std::vector<train::PruneTarget>& targets, const std::string& what);

}  // namespace narrow
