// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/method.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/pruning.h"

namespace narrow::train {
namespace {

/// Scales of weights that are not learned follow the weights' extremes.
class FollowWeights : public Method {
 public:
  explicit FollowWeights(Executor& executor) : executor_(executor) { follow(); }
  void after_step(const StepInfo& /*info*/) override { follow(); }

 private:
  void follow() {
    for (auto& [name, grid] : executor_.weight_grids()) {
      const auto weight = executor_.parameters().find(name);
      if (weight == executor_.parameters().end()) continue;  // frozen, and so is its grid
      if (grid.rule().follow) grid.follow(executor_.used(name, weight->second));
    }
  }
  Executor& executor_;
};

/// Ranges of activations follow their extremes, batch by batch, until they are frozen (Jacob et
/// al., 2018).
class MovingAverage : public Method {
 public:
  MovingAverage(Executor& executor, const QatOptions& options)
      : executor_(executor), options_(options) {
    for (const auto& [group, grid] : executor.activation_grids()) ranges_[group] = grid.range();
    executor.observe = [this](const std::string& group, Grid& grid, const torch::Tensor& x,
                              Ranks* ranks) { observe(group, grid, x, ranks); };
  }

  void after_step(const StepInfo& info) override {
    const int64_t last = options_.freeze_step > 0 ? options_.freeze_step : info.total / 4;
    if (info.step + 1 >= last) freeze();
  }

  void save(std::map<std::string, Tensor>& to) const override {
    for (const auto& [group, range] : ranges_) {
      to["range." + group] = Tensor::vector(std::vector<float>{range.low, range.high});
    }
    to["range_frozen"] = Tensor::vector(std::vector<float>{executor_.observe ? 0.0F : 1.0F});
  }

  void load(const std::map<std::string, Tensor>& from) override {
    for (auto& [group, range] : ranges_) {
      const torch::Tensor x = state_of(from, "range." + group, 2);
      range = {x.data_ptr<float>()[0], x.data_ptr<float>()[1]};
      executor_.activation_grids().at(group).set_range(range);
    }
    if (state_of(from, "range_frozen", 1).item<float>() != 0) freeze();
  }

 private:
  void freeze() { executor_.observe = {}; }

  /// Of the samples of all ranks.
  static Grid::Range extremes(const torch::Tensor& x, Ranks* ranks) {
    const auto [low, high] = torch::aminmax(x);
    Grid::Range own{low.item<float>(), high.item<float>()};
    if (ranks == nullptr) return own;
    std::string bytes(sizeof(own), 0);
    std::memcpy(bytes.data(), &own, sizeof(own));
    for (const std::string& said : ranks->gather(bytes)) {
      Grid::Range other;
      std::memcpy(&other, said.data(), std::min(said.size(), sizeof(other)));
      own.low = std::min(own.low, other.low);
      own.high = std::max(own.high, other.high);
    }
    return own;
  }

  void observe(const std::string& group, Grid& grid, const torch::Tensor& x, Ranks* ranks) {
    const torch::NoGradGuard guard;
    if (x.numel() == 0) return;
    const Grid::Range now = extremes(x, ranks);
    Grid::Range& range = ranges_.at(group);
    const auto keep = static_cast<float>(options_.range_momentum);
    range.low = keep * range.low + (1 - keep) * std::min(0.0F, now.low);
    range.high = keep * range.high + (1 - keep) * std::max(0.0F, now.high);
    grid.set_range(range);
  }

  Executor& executor_;
  QatOptions options_;
  std::map<std::string, Grid::Range> ranges_;  // by group
};

/// Keeps PACT's clips small: a penalty on their squares.
class ClipDecay : public Method {
 public:
  ClipDecay(Executor& executor, double decay) : executor_(executor), decay_(decay) {}
  torch::Tensor penalty() override {
    torch::Tensor sum;
    for (auto& [group, grid] : executor_.activation_grids()) {
      const double codes = grid.scheme().qmax() - grid.zero().item<double>();
      const torch::Tensor square = (grid.log_scale() * 2).exp().sum() * (codes * codes);
      sum = sum.defined() ? sum + square : square;
    }
    return sum.defined() ? sum * decay_ : sum;
  }

 private:
  Executor& executor_;
  double decay_;
};

}  // namespace

torch::Tensor state_of(const std::map<std::string, Tensor>& from, const std::string& name,
                       int64_t elements) {
  const auto at = from.find(name);
  if (at == from.end() || at->second.elements() != elements ||
      at->second.dtype() != DType::float32) {
    throw Error(ErrorCode::corrupt_data, fmt::format("no state '{}' of a method", name));
  }
  return to_torch(at->second);
}

std::vector<std::unique_ptr<Method>> make_methods(Executor& executor, Learned& /*learned*/,
                                                  const TrainPlan& plan,
                                                  const TrainOptions& options) {
  std::vector<std::unique_ptr<Method>> methods;
  // First, so that what follows weights follows those that are left.
  if (options.prune.active()) methods.push_back(make_pruning(executor, plan, options));
  if (options.regularize.active()) methods.push_back(make_regularizer(executor, plan, options));
  if (plan.weights.empty() && plan.activations.empty()) return methods;
  const QatOptions& qat = options.qat;
  if (weight_rule(qat).follow) methods.push_back(std::make_unique<FollowWeights>(executor));
  if (qat.method == QatMethod::wrpn) {
    // Clipped where the network that came in ends, for good.
    for (auto& [name, grid] : executor.weight_grids()) {
      const auto weight = executor.parameters().find(name);
      if (weight != executor.parameters().end()) grid.follow(executor.used(name, weight->second));
    }
  }
  if (activation_rule(qat).observe) {
    methods.push_back(std::make_unique<MovingAverage>(executor, qat));
  }
  if (qat.method == QatMethod::pact && activation_rule(qat).learn_scale && qat.clip_decay > 0) {
    methods.push_back(std::make_unique<ClipDecay>(executor, qat.clip_decay));
  }
  if (qat.oscillation > 0) methods.push_back(make_oscillation_freezing(executor, qat));
  return methods;
}

}  // namespace narrow::train
