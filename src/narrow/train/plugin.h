// SPDX-License-Identifier: Apache-2.0
// How the program meets libnarrow_train.so: one symbol that gives a table of functions. Both are
// built from one source tree; a library of another build is refused by its version.
#pragma once

#include "narrow/train/trainer.h"

namespace narrow::train {

/// Changes with every change of the types below or of those they hold.
inline constexpr int kPluginVersion = 2;
inline constexpr const char* kPluginSymbol = "narrow_train_plugin";

struct Plugin {
  int version;
  const char* torch_version;
  /// Throws Error: unsupported for operators without a training rule (all named),
  /// numeric_failure for a loss that is no number (step and layer named), invalid_argument.
  TrainResult (*train)(const TrainPlan& plan, const Dataset& data, const TrainOptions& options,
                       const TrainHooks& hooks, const CheckpointPlace& checkpoint);
  /// Outputs of the graph as training computes them (grids of the plan included), for tests and
  /// comparisons.
  std::vector<Tensor> (*run)(const TrainPlan& plan, const std::map<std::string, Tensor>& inputs);
  /// Operators that have a training rule.
  std::vector<std::string> (*operators)();
};

using PluginFunction = const Plugin* (*)();

}  // namespace narrow::train
