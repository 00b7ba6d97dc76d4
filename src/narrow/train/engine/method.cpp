// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/method.h"

namespace narrow::train {
namespace {

/// Scales of weights that are not learned follow the weights' extremes.
class FollowWeights : public Method {
 public:
  explicit FollowWeights(Executor& executor) : executor_(executor) {}
  void after_step(const StepInfo& /*info*/) override {
    for (auto& [name, grid] : executor_.weight_grids()) {
      grid.follow(executor_.parameters().at(name));
    }
  }

 private:
  Executor& executor_;
};

}  // namespace

std::vector<std::unique_ptr<Method>> make_methods(Executor& executor, Learned& /*learned*/,
                                                  const TrainPlan& /*plan*/,
                                                  const TrainOptions& options) {
  std::vector<std::unique_ptr<Method>> methods;
  if (options.ranges == RangeKind::fixed) {
    methods.push_back(std::make_unique<FollowWeights>(executor));
  }
  return methods;
}

}  // namespace narrow::train
