// SPDX-License-Identifier: Apache-2.0
// The optimizer of a run, libtorch's own.
#pragma once

#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "narrow/train/trainer.h"

namespace narrow::train {

/// What is learned: "parameter.NAME", "weight_scale.NAME", "value_scale.GROUP", ...
using Learned = std::map<std::string, torch::Tensor*>;

/// The rate of each group, times what make_optimizer() gave it.
void set_rate(torch::optim::Optimizer& optimizer, const std::vector<double>& paces, double lr);

struct PacedOptimizer {
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  std::vector<double> paces;  // of its groups
};

/// Weight decay is for parameters of two dimensions and more. Throws invalid_argument where
/// nothing is learned.
PacedOptimizer make_optimizer(const Learned& learned, const TrainOptions& options);

}  // namespace narrow::train
