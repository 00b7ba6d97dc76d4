// SPDX-License-Identifier: Apache-2.0
// The training loop: batches, loss, gradients, updates, averages, checkpoints.
#pragma once

#include "narrow/train/trainer.h"

namespace narrow::train {

TrainResult run_training(const TrainPlan& plan, const Dataset& data, const TrainOptions& options,
                         const TrainHooks& hooks, const CheckpointPlace& place);

}  // namespace narrow::train
