// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/optimizer.h"

#include "narrow/core/error.h"

namespace narrow::train {

void set_rate(torch::optim::Optimizer& optimizer, const std::vector<double>& paces, double lr) {
  auto& groups = optimizer.param_groups();
  for (size_t i = 0; i < groups.size(); ++i) groups[i].options().set_lr(lr * paces.at(i));
}

PacedOptimizer make_optimizer(const Learned& learned, const TrainOptions& options) {
  std::vector<torch::Tensor> decayed;
  std::vector<torch::Tensor> plain;
  std::vector<torch::Tensor> scales;
  for (auto& [name, tensor] : learned) {
    if (name.starts_with("weight_scale.") || name.starts_with("value_scale.")) {
      scales.push_back(*tensor);
      continue;
    }
    const bool matrix =
        (name.starts_with("parameter.") || name.starts_with("adapter_")) && tensor->dim() >= 2;
    (matrix ? decayed : plain).push_back(*tensor);
  }
  std::vector<torch::optim::OptimizerParamGroup> groups;
  PacedOptimizer out;
  const auto add = [&](const std::vector<torch::Tensor>& tensors, double decay, double pace) {
    if (tensors.empty()) return;
    out.paces.push_back(pace);
    torch::optim::OptimizerParamGroup group(tensors);
    switch (options.optimizer) {
      case OptimizerKind::sgd:
        group.set_options(std::make_unique<torch::optim::SGDOptions>(
            torch::optim::SGDOptions(options.lr).momentum(options.momentum).weight_decay(decay)));
        break;
      case OptimizerKind::adam:
        group.set_options(std::make_unique<torch::optim::AdamOptions>(
            torch::optim::AdamOptions(options.lr).weight_decay(decay)));
        break;
      case OptimizerKind::adamw:
        group.set_options(std::make_unique<torch::optim::AdamWOptions>(
            torch::optim::AdamWOptions(options.lr).weight_decay(decay)));
        break;
    }
    groups.push_back(std::move(group));
  };
  add(decayed, options.weight_decay, 1);
  add(plain, 0, 1);
  add(scales, 0, options.scale_lr);
  if (groups.empty()) {
    throw Error(ErrorCode::invalid_argument, "the model has nothing to train");
  }
  switch (options.optimizer) {
    case OptimizerKind::sgd:
      out.optimizer =
          std::make_unique<torch::optim::SGD>(groups, torch::optim::SGDOptions(options.lr));
      break;
    case OptimizerKind::adam:
      out.optimizer = std::make_unique<torch::optim::Adam>(groups);
      break;
    case OptimizerKind::adamw:
      out.optimizer = std::make_unique<torch::optim::AdamW>(groups);
      break;
  }
  return out;
}

}  // namespace narrow::train
