// SPDX-License-Identifier: Apache-2.0
// How the program meets libnarrow_train.so: one symbol that gives a table of functions. Both are
// built from one source tree; a library of another build is refused by its version.
#pragma once

#include "narrow/train/trainer.h"

namespace narrow::train {

/// Changes with every change of the types below or of those they hold.
inline constexpr int kPluginVersion = 19;
inline constexpr const char* kPluginSymbol = "narrow_train_plugin";

/// What a TorchScript module became, and what libtorch computes with it.
struct ScriptImport {
  Graph graph;
  std::vector<Tensor> inputs;  // random
  std::vector<Tensor> outputs;
};

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
  /// A TorchScript module's `forward` in evaluation mode as a graph with inputs of these shapes (a
  /// dimension with a name may have any size). Control flow is followed where shapes and constants
  /// decide. Throws not_found, corrupt_data (what libtorch cannot read), invalid_argument (shapes
  /// that the module does not take), unsupported naming every function without a counterpart.
  ScriptImport (*import_torchscript)(const std::string& path,
                                     const std::vector<SymbolicShape>& inputs);
  /// Waits until all ranks have come. Throws io_error where they do not, unsupported where this
  /// library was built without Gloo.
  std::unique_ptr<Ranks> (*join)(const RankPlace& place);
};

using PluginFunction = const Plugin* (*)();

}  // namespace narrow::train
