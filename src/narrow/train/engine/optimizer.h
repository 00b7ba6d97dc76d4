// SPDX-License-Identifier: Apache-2.0
// The optimizer of a run, libtorch's own.
#pragma once

#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>

#include "narrow/train/trainer.h"

namespace narrow::train {

/// What is learned: "parameter.NAME", "weight_scale.NAME", "value_scale.GROUP", ...
using Learned = std::map<std::string, torch::Tensor*>;

/// Weight decay is for parameters of two dimensions and more. Throws invalid_argument where
/// nothing is learned.
std::unique_ptr<torch::optim::Optimizer> make_optimizer(const Learned& learned,
                                                        const TrainOptions& options);

}  // namespace narrow::train
