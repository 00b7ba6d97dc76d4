// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/pruning.h"

#include <fmt/format.h>

#include <cmath>

#include "narrow/core/error.h"
#include "narrow/train/engine/bridge.h"

namespace narrow::train {
namespace {

class Pruning : public Method {
 public:
  Pruning(Executor& executor, const TrainPlan& plan, const PruneOptions& options)
      : executor_(executor), targets_(plan.prune), options_(options) {
    for (const PruneTarget& target : targets_) {
      const Tensor w = weights(target);
      Tensor ones = nonzero_mask(w);
      if (options_.method != PruneMethod::keep) std::ranges::fill(ones.mutable_data<float>(), 1.0F);
      set(target, ones);
      const bool splicing = options_.method == PruneMethod::splicing;
      thresholds_[target.weights] =
          splicing ? splicing_threshold(w, options_.k) : options_.k * deviation(w);
      if (options_.method == PruneMethod::movement) {
        moved_[target.weights] = torch::zeros_like(executor_.parameters().at(target.weights));
      }
    }
    // Masks that are wanted from the first step on, whatever the number of steps.
    if (options_.start == 0) {
      const bool once = options_.method == PruneMethod::level;
      update(once ? options_.sparsity : options_.initial);
    }
  }

  /// Scores of movement: what the steps have added to |w|, to first order.
  void before_step(const StepInfo& /*info*/) override {
    const torch::NoGradGuard guard;
    for (auto& [name, score] : moved_) {
      const torch::Tensor& w = executor_.parameters().at(name);
      if (w.grad().defined()) score.sub_(w.grad() * w);
    }
  }

  void after_step(const StepInfo& info) override {
    const PruneWindow window = window_of(options_, info.steps_per_epoch, info.total);
    const int64_t done = info.step + 1;
    if (window.due(done)) update(sparsity_at(options_, window, done));
    settled_ = done >= window.last;
  }

  bool settled() const override { return settled_; }

  void save(std::map<std::string, Tensor>& to) const override {
    for (const PruneTarget& target : targets_) {
      to["mask." + target.weights] = from_torch(executor_.masks().at(target.weights));
    }
    for (const auto& [name, score] : moved_) to["moved." + name] = from_torch(score);
    to["settled"] = Tensor::scalar(settled_ ? 1.0F : 0.0F);
  }

  void load(const std::map<std::string, Tensor>& from) override {
    const auto take = [&](const std::string& name, const torch::Tensor& like) {
      const auto found = from.find(name);
      if (found == from.end() || found->second.elements() != like.numel()) {
        throw Error(ErrorCode::corrupt_data, fmt::format("the checkpoint has no '{}'", name));
      }
      return to_torch(found->second).reshape(like.sizes());
    };
    for (const PruneTarget& target : targets_) {
      torch::Tensor& mask = executor_.masks().at(target.weights);
      mask = take("mask." + target.weights, mask);
    }
    for (auto& [name, score] : moved_) score = take("moved." + name, score);
    settled_ = take("settled", torch::zeros({})).item<float>() != 0;
  }

 private:
  Tensor weights(const PruneTarget& target) const {
    return from_torch(executor_.parameters().at(target.weights).detach());
  }
  void set(const PruneTarget& target, const Tensor& mask) {
    executor_.masks()[target.weights] = to_torch(mask);
  }

  void update(double sparsity) {
    switch (options_.method) {
      case PruneMethod::none:
      case PruneMethod::keep:
        return;
      case PruneMethod::sensitivity:
      case PruneMethod::splicing:
        cut_at_thresholds();
        return;
      case PruneMethod::magnitude:
      case PruneMethod::level:
      case PruneMethod::movement:
        break;
    }
    std::map<std::string, Tensor> scores;
    for (const PruneTarget& target : targets_) {
      const auto moved = moved_.find(target.weights);
      scores[target.weights] =
          moved != moved_.end() ? from_torch(moved->second) : absolute(weights(target));
    }
    const Masks masks = lowest_masks(targets_, scores, sparsity, options_);
    for (const PruneTarget& target : targets_) set(target, masks.at(target.weights));
  }

  void cut_at_thresholds() {
    const bool splicing = options_.method == PruneMethod::splicing;
    for (const PruneTarget& target : targets_) {
      const double at = thresholds_.at(target.weights);
      const double below = splicing ? options_.low * at : at;
      const double above = splicing ? options_.high * at : at;
      set(target, threshold_mask(weights(target), below, above,
                                 from_torch(executor_.masks().at(target.weights))));
    }
  }

  Executor& executor_;
  const std::vector<PruneTarget>& targets_;
  const PruneOptions& options_;
  std::map<std::string, double> thresholds_;
  std::map<std::string, torch::Tensor> moved_;
  bool settled_ = false;
};

class Regularizer : public Method {
 public:
  Regularizer(Executor& executor, const TrainPlan& plan, const RegularizeOptions& options)
      : executor_(executor), targets_(plan.regularize), options_(options) {}

  torch::Tensor penalty() override {
    constexpr double kTiny = 1e-12;  // the root has no gradient at zero
    torch::Tensor sum;
    const auto add = [&](const torch::Tensor& part) { sum = sum.defined() ? sum + part : part; };
    for (const PruneTarget& target : targets_) {
      const torch::Tensor& w = executor_.parameters().at(target.weights);
      if (options_.l1 > 0) add(options_.l1 * w.abs().sum());
      if (options_.group_lasso == 0) continue;
      const int64_t axis =
          options_.groups == LassoGroups::filters ? target.output_axis : target.input_axis;
      std::vector<int64_t> others;
      for (int64_t i = 0; i < w.dim(); ++i) {
        if (i != axis) others.push_back(i);
      }
      const double size = static_cast<double>(w.numel()) / static_cast<double>(w.size(axis));
      add(options_.group_lasso * std::sqrt(size) * (w.pow(2).sum(others) + kTiny).sqrt().sum());
    }
    return sum;
  }

 private:
  Executor& executor_;
  const std::vector<PruneTarget>& targets_;
  const RegularizeOptions& options_;
};

}  // namespace

std::unique_ptr<Method> make_pruning(Executor& executor, const TrainPlan& plan,
                                     const TrainOptions& options) {
  return std::make_unique<Pruning>(executor, plan, options.prune);
}

std::unique_ptr<Method> make_regularizer(Executor& executor, const TrainPlan& plan,
                                         const TrainOptions& options) {
  return std::make_unique<Regularizer>(executor, plan, options.regularize);
}

}  // namespace narrow::train
