// SPDX-License-Identifier: Apache-2.0
// What a method may add to a run: a penalty on the loss, something to do before and after each
// step of the optimizer, and what it must remember in a checkpoint.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/train/engine/executor.h"
#include "narrow/train/engine/optimizer.h"
#include "narrow/train/engine/torch.h"
#include "narrow/train/trainer.h"

namespace narrow::train {

struct StepInfo {
  int64_t step = 0;  // from 0 on
  int64_t total = 0;
  int64_t steps_per_epoch = 0;
};

class Method {
 public:
  virtual ~Method() = default;
  /// Added to the loss of each batch; undefined: nothing.
  virtual torch::Tensor penalty() { return {}; }
  /// Gradients of the step are there.
  virtual void before_step(const StepInfo&) {}
  virtual void after_step(const StepInfo&) {}
  /// Whether a state is one that may come out, however good it is.
  virtual bool settled() const { return true; }
  /// Tensors by name, of this method's own.
  virtual void save(std::map<std::string, Tensor>&) const {}
  /// Throws corrupt_data where one is missing.
  virtual void load(const std::map<std::string, Tensor>&) {}
};

/// An own tensor of a method by its name. Throws corrupt_data where it is missing or of another
/// size.
torch::Tensor state_of(const std::map<std::string, Tensor>& from, const std::string& name,
                       int64_t elements);

/// Weights that flip between two codes more and more often are frozen at the mean of their codes
/// (Nagel et al., Overcoming Oscillations in Quantization-Aware Training, 2022).
std::unique_ptr<Method> make_oscillation_freezing(Executor& executor, const QatOptions& options);

/// Those that plan and options ask for. They may add to `learned`, and keep what they are given.
std::vector<std::unique_ptr<Method>> make_methods(Executor& executor, Learned& learned,
                                                  const TrainPlan& plan,
                                                  const TrainOptions& options);

}  // namespace narrow::train
