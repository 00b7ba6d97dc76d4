// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/plugin.h"

#include "narrow/core/error.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/executor.h"
#include "narrow/train/engine/group.h"
#include "narrow/train/engine/loop.h"
#include "narrow/train/engine/torch.h"
#include "narrow/train/engine/torchscript/import.h"

namespace narrow::train {
namespace {

/// What libtorch throws becomes an Error.
template <class F>
auto translated(F&& act) {
  try {
    return act();
  } catch (const c10::Error& e) {
    const std::string text = e.what_without_backtrace();
    throw Error(ErrorCode::internal, "libtorch: " + text.substr(0, text.find('\n')));
  }
}

TrainResult train(const TrainPlan& plan, const Dataset& data, const TrainOptions& options,
                  const TrainHooks& hooks, const CheckpointPlace& checkpoint) {
  return translated([&] { return run_training(plan, data, options, hooks, checkpoint); });
}

std::vector<Tensor> run(const TrainPlan& plan, const std::map<std::string, Tensor>& inputs) {
  return translated([&] {
    const torch::NoGradGuard guard;
    std::map<std::string, torch::Tensor> converted;
    for (const auto& [name, x] : inputs) converted[name] = to_torch(x);
    std::vector<Tensor> outputs;
    for (const torch::Tensor& y : Executor(plan).run(converted, {})) {
      outputs.push_back(from_torch(y));
    }
    return outputs;
  });
}

std::vector<std::string> operators() {
  std::vector<std::string> names;
  for (const std::span<const OpRule> table : all_rules()) {
    for (const OpRule& rule : table) names.emplace_back(rule.op);
  }
  return names;
}

ScriptImport import(const std::string& path, const std::vector<SymbolicShape>& inputs) {
  return translated([&] { return import_torchscript(path, inputs); });
}

constexpr Plugin kPlugin = {kPluginVersion, TORCH_VERSION, train,     run,
                            operators,      import,        join_ranks};

}  // namespace
}  // namespace narrow::train

extern "C" __attribute__((visibility("default"))) const narrow::train::Plugin*
narrow_train_plugin() {
  return &narrow::train::kPlugin;
}
