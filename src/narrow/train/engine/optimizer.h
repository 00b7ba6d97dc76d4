// SPDX-License-Identifier: Apache-2.0
// The optimizer of a run: one pass over each parameter, its gradient and its state.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/train/engine/torch.h"
#include "narrow/train/trainer.h"

namespace narrow::train {

/// What is learned: "parameter.NAME", "weight_scale.NAME", "value_scale.GROUP", ...
using Learned = std::map<std::string, torch::Tensor*>;

class Optimizer {
 public:
  /// Weight decay is for parameters of two dimensions and more. Throws invalid_argument where
  /// nothing is learned. The tensors must outlive it.
  Optimizer(const Learned& learned, const TrainOptions& options);
  void step(double lr);
  /// Gives the gradients' memory back.
  void zero_grad();
  /// Tensors by name, of the optimizer's own.
  void save(std::map<std::string, Tensor>& to) const;
  /// Throws corrupt_data where one is missing.
  void load(const std::map<std::string, Tensor>& from);

 private:
  struct Part {
    std::string name;
    torch::Tensor* x;
    float decay;
    double pace;                // its rate, in parts of the others'
    std::vector<float> first;   // mean of the gradient, or velocity
    std::vector<float> second;  // mean of its square; empty with sgd
  };
  void update(Part& part, double lr) const;

  OptimizerKind kind_;
  double momentum_;
  int64_t steps_ = 0;
  std::vector<Part> parts_;
};

}  // namespace narrow::train
