// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/optimizer.h"

#include "narrow/core/error.h"

namespace narrow::train {

std::unique_ptr<torch::optim::Optimizer> make_optimizer(const Learned& learned,
                                                        const TrainOptions& options) {
  std::vector<torch::Tensor> decayed;
  std::vector<torch::Tensor> plain;
  for (auto& [name, tensor] : learned) {
    const bool matrix = name.starts_with("parameter.") && tensor->dim() >= 2;
    (matrix ? decayed : plain).push_back(*tensor);
  }
  std::vector<torch::optim::OptimizerParamGroup> groups;
  const auto add = [&](const std::vector<torch::Tensor>& tensors, double decay) {
    if (tensors.empty()) return;
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
  add(decayed, options.weight_decay);
  add(plain, 0);
  if (groups.empty()) {
    throw Error(ErrorCode::invalid_argument, "the model has nothing to train");
  }
  switch (options.optimizer) {
    case OptimizerKind::sgd:
      return std::make_unique<torch::optim::SGD>(groups, torch::optim::SGDOptions(options.lr));
    case OptimizerKind::adam:
      return std::make_unique<torch::optim::Adam>(groups);
    case OptimizerKind::adamw:
      return std::make_unique<torch::optim::AdamW>(groups);
  }
  return nullptr;
}

}  // namespace narrow::train
