// SPDX-License-Identifier: Apache-2.0
// A GGUF file whose weights are blocks already: training on the same grids begins with its codes.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "narrow/llm/checkpoint.h"
#include "narrow/train/qat.h"
#include "narrow/train/trainer.h"

namespace narrow {

/// Groups of 32 at 4 bits have the grids of Q4_0, at 8 bits those of Q8_0: where the file has the
/// weight in that type, its scales take the place of the plan's, and the codes are the file's. They
/// are learned, or stay where the ranges are not. Returns how many weights.
int64_t take_file_grids(const llm::Checkpoint& file, const train::QatOptions& options,
                        train::TrainPlan& plan);

/// Blocks by weight, in place of what training would make.
using HeldBlocks = std::map<std::string, llm::TensorInMemory>;

/// Weights of the plan that nothing changes (frozen, or with adapters beside them) and that the
/// file has on the same grid keep the file's bytes: they leave the plan's grids.
void hold_file_blocks(const llm::Checkpoint& file, train::TrainPlan& plan, HeldBlocks& held);

}  // namespace narrow
