// SPDX-License-Identifier: Apache-2.0
// Flags of `narrow train` that remove weights.
#pragma once

#include <string>

#include "context.h"
#include "narrow/train/trainer.h"

namespace narrow::cli {

struct PruneFlags {
  std::string prune;
  std::string regularize;
};
void add_prune_flags(CLI::App& command, PruneFlags& flags);
/// Throws invalid_argument naming what is wrong with a flag's text.
void set_prune_options(const PruneFlags& flags, train::TrainOptions& options);

}  // namespace narrow::cli
