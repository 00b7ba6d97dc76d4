// SPDX-License-Identifier: Apache-2.0
// Pruning while training, and penalties that make weights small, as methods of a run.
#pragma once

#include <memory>

#include "narrow/train/engine/method.h"

namespace narrow::train {

/// Makes the masks of the executor as options.prune says. The arguments must outlive it.
std::unique_ptr<Method> make_pruning(Executor& executor, const TrainPlan& plan,
                                     const TrainOptions& options);
/// L1 and group lasso of options.regularize.
std::unique_ptr<Method> make_regularizer(Executor& executor, const TrainPlan& plan,
                                         const TrainOptions& options);

}  // namespace narrow::train
