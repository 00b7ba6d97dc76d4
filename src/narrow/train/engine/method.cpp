// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/method.h"

#include "narrow/train/engine/pruning.h"

namespace narrow::train {
namespace {

/// Scales of weights that are not learned follow the weights' extremes.
class FollowWeights : public Method {
 public:
  explicit FollowWeights(Executor& executor) : executor_(executor) {}
  void after_step(const StepInfo& /*info*/) override {
    for (auto& [name, grid] : executor_.weight_grids()) {
      const auto weight = executor_.parameters().find(name);
      if (weight == executor_.parameters().end()) continue;  // frozen, and so is its grid
      grid.follow(executor_.used(name, weight->second));
    }
  }

 private:
  Executor& executor_;
};

}  // namespace

std::vector<std::unique_ptr<Method>> make_methods(Executor& executor, Learned& /*learned*/,
                                                  const TrainPlan& plan,
                                                  const TrainOptions& options) {
  std::vector<std::unique_ptr<Method>> methods;
  // First, so that what follows weights follows those that are left.
  if (options.prune.active()) methods.push_back(make_pruning(executor, plan, options));
  if (options.ranges == RangeKind::fixed) {
    methods.push_back(std::make_unique<FollowWeights>(executor));
  }
  if (options.regularize.active()) methods.push_back(make_regularizer(executor, plan, options));
  return methods;
}

}  // namespace narrow::train
