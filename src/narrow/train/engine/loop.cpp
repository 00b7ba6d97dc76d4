// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/loop.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <sstream>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"
#include "narrow/train/augment.h"
#include "narrow/train/checkpoint.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/executor.h"
#include "narrow/train/engine/loss.h"
#include "narrow/train/engine/method.h"
#include "narrow/train/engine/optimizer.h"

namespace narrow::train {
namespace {

/// One seed for each epoch and use, so that a resumed run draws what an uninterrupted one drew.
uint64_t seed_of(uint64_t seed, int64_t epoch, uint64_t use) {
  Rng rng(seed ^ (static_cast<uint64_t>(epoch) << 8) ^ (use << 56));
  return rng.next();
}

class Threads {
 public:
  explicit Threads(int threads) : limit_(threads), saved_(torch::get_num_threads()) {
    torch::set_num_threads(threads > 0 ? threads : available_threads());
  }
  ~Threads() { torch::set_num_threads(saved_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  ThreadLimit limit_;
  int saved_;
};

class Trainer {
 public:
  Trainer(const TrainPlan& plan, const Dataset& data, const TrainOptions& options,
          const TrainHooks& hooks, const CheckpointPlace& place)
      : plan_(plan),
        data_(data),
        options_(options),
        hooks_(hooks),
        place_(place),
        threads_(options.threads),
        executor_(plan),
        loss_(plan, options, hooks, data.labelled()) {
    if (data.size() == 0) throw Error(ErrorCode::invalid_argument, "the data have no samples");
    for (auto& [name, tensor] : executor_.parameters()) learned_["parameter." + name] = &tensor;
    for (auto& [name, grid] : executor_.weight_grids()) add_grid("weight_scale." + name, grid);
    for (auto& [name, grid] : executor_.activation_grids()) add_grid("value_scale." + name, grid);
    methods_ = make_methods(executor_, learned_, plan, options);
    optimizer_ = make_optimizer(learned_, options);
    steps_per_epoch_ = (data_.size() + options.batch * options.accumulate - 1) /
                       (options.batch * options.accumulate);
    if (options.ema > 0) {
      for (auto& [name, tensor] : learned_) averages_[name] = tensor->detach().clone();
    }
  }

  TrainResult run();

 private:
  void add_grid(const std::string& name, Grid& grid);
  TakenBatch take(std::span<const int64_t> indices, Rng& rng) const;
  torch::Tensor loss_of(const TakenBatch& batch);
  void step(int64_t number);
  EpochRecord epoch(int64_t number);
  TrainState state() const;
  void judge(EpochRecord& record);
  void save(int64_t epoch) const;
  int64_t load();
  [[noreturn]] void diverged(const TakenBatch& batch, int64_t epoch, int64_t step);

  const TrainPlan& plan_;
  const Dataset& data_;
  const TrainOptions& options_;
  const TrainHooks& hooks_;
  const CheckpointPlace& place_;
  Threads threads_;
  Executor executor_;
  Loss loss_;
  Learned learned_;
  std::vector<std::unique_ptr<Method>> methods_;
  std::map<std::string, torch::Tensor> averages_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  int64_t steps_per_epoch_ = 1;
  TrainResult result_;
  double best_metric_ = 0;
};

void Trainer::add_grid(const std::string& name, Grid& grid) {
  // Weights' scales that follow the weights are no parameters; calibrated ones do not change.
  if (options_.ranges != RangeKind::learned) return;
  grid.log_scale().set_requires_grad(true);
  learned_[name] = &grid.log_scale();
}

TakenBatch Trainer::take(std::span<const int64_t> indices, Rng& rng) const {
  Batch batch = data_.get(indices);
  TakenBatch taken;
  taken.labels = std::move(batch.labels);
  for (auto& [name, tensor] : batch.inputs) {
    Tensor x = tensor;
    if (x.rank() == 4 && x.dtype() == DType::float32) {
      x = augment(x, options_.shift, options_.flip, rng);
    }
    taken.inputs[name] = to_torch(x);
    if (hooks_.teacher) taken.raw[name] = std::move(x);
  }
  return taken;
}

torch::Tensor Trainer::loss_of(const TakenBatch& batch) {
  torch::Tensor loss = loss_(executor_.run(batch.inputs, {true}), batch);
  for (const auto& method : methods_) {
    const torch::Tensor penalty = method->penalty();
    if (penalty.defined()) loss = loss + penalty;
  }
  return loss;
}

void Trainer::diverged(const TakenBatch& batch, int64_t epoch, int64_t step) {
  const std::string where = executor_.first_non_finite(batch.inputs);
  throw Error(ErrorCode::numeric_failure,
              fmt::format("epoch {}, step {}: the loss is no number{}", epoch, step,
                          where.empty() ? "" : "; the first that is not finite is " + where),
              "lower --lr, clip gradients with --clip-norm 1, or warm up with --warmup-steps");
}

void Trainer::step(int64_t number) {
  const StepInfo info{number, steps_per_epoch_ * options_.epochs, steps_per_epoch_};
  for (const auto& method : methods_) method->before_step(info);
  std::vector<torch::Tensor> all;
  for (auto& [name, tensor] : learned_) all.push_back(*tensor);
  if (options_.clip_norm > 0) torch::nn::utils::clip_grad_norm_(all, options_.clip_norm);
  const double lr = learning_rate(options_, number, steps_per_epoch_);
  for (auto& group : optimizer_->param_groups()) group.options().set_lr(lr);
  optimizer_->step();
  optimizer_->zero_grad();
  for (const auto& method : methods_) method->after_step(info);
  if (options_.ema == 0) return;
  const torch::NoGradGuard guard;
  for (auto& [name, average] : averages_) average.lerp_(*learned_.at(name), 1 - options_.ema);
}

EpochRecord Trainer::epoch(int64_t number) {
  const auto start = Clock::now();
  EpochRecord record;
  record.epoch = number;
  std::vector<int64_t> order(static_cast<size_t>(data_.size()));
  std::iota(order.begin(), order.end(), 0);
  Rng shuffler(seed_of(options_.seed, number, 1));
  shuffler.shuffle<int64_t>(order);
  Rng images(seed_of(options_.seed, number, 2));
  torch::manual_seed(seed_of(options_.seed, number, 3));
  const auto total = static_cast<int64_t>(order.size());
  double loss_sum = 0;
  int64_t step_number = (number - 1) * steps_per_epoch_;
  int64_t gathered = 0;
  for (int64_t first = 0; first < total; first += options_.batch) {
    hooks_.progress.check_cancelled();
    const int64_t count = std::min(options_.batch, total - first);
    const TakenBatch batch = take({order.data() + first, static_cast<size_t>(count)}, images);
    const torch::Tensor loss = loss_of(batch);
    const double value = loss.item<double>();
    if (!std::isfinite(value)) diverged(batch, number, step_number + 1);
    loss_sum += value * static_cast<double>(count);
    (options_.accumulate > 1 ? loss / options_.accumulate : loss).backward();
    const bool last = first + count == total;
    if (++gathered == options_.accumulate || last) {
      record.lr = learning_rate(options_, step_number, steps_per_epoch_);
      step(step_number++);
      gathered = 0;
    }
    hooks_.progress.report(fmt::format("epoch {}/{}, loss {:.4f}", number, options_.epochs,
                                       loss_sum / static_cast<double>(first + count)),
                           (number - 1) * total + first + count, options_.epochs * total);
  }
  record.loss = loss_sum / static_cast<double>(total);
  record.seconds = seconds_since(start);
  record.samples_per_second = static_cast<double>(total) / record.seconds;
  return record;
}

TrainState Trainer::state() const {
  TrainState s;
  const auto now = [&](const std::string& name, const torch::Tensor& tensor) {
    const auto average = averages_.find(name);
    return average != averages_.end() ? average->second : tensor;
  };
  for (const auto& [name, tensor] : executor_.parameters()) {
    s.parameters[name] =
        from_torch(executor_.used(name, now("parameter." + name, tensor)).detach());
  }
  for (const auto& [name, tensor] : executor_.buffers()) s.parameters[name] = from_torch(tensor);
  for (const auto& [name, grid] : executor_.weight_grids()) {
    s.weights[name] = grid.params(now("weight_scale." + name, grid.log_scale()));
  }
  for (const auto& [value, group] : executor_.groups()) {
    const Grid& grid = executor_.activation_grids().at(group);
    s.activations[value] = grid.params(now("value_scale." + group, grid.log_scale()));
  }
  return s;
}

void Trainer::judge(EpochRecord& record) {
  const bool measured = static_cast<bool>(hooks_.evaluate);
  if (!measured) {
    result_.state = state();
    result_.best_epoch = record.epoch;
    return;
  }
  TrainState now = state();
  record.metric = hooks_.evaluate(now);
  if (result_.best_epoch != 0 && *record.metric <= best_metric_) return;
  // A state that is not to come out gives way to the next.
  const bool settled =
      std::ranges::all_of(methods_, [](const auto& method) { return method->settled(); });
  best_metric_ = settled ? *record.metric : std::numeric_limits<double>::lowest();
  result_.best_epoch = record.epoch;
  result_.state = std::move(now);
}

Tensor bytes_tensor(const std::string& text) {
  Tensor out(DType::uint8, {static_cast<int64_t>(text.size())});
  if (!text.empty()) std::memcpy(out.mutable_raw(), text.data(), text.size());
  return out;
}

void add_state(const std::string& prefix, const TrainState& s, std::map<std::string, Tensor>& to) {
  for (const auto& [name, x] : s.parameters) to[prefix + "parameter." + name] = x;
  for (const auto& [name, x] : s.weights) to[prefix + "weight." + name] = x.scale;
  for (const auto& [name, x] : s.activations) to[prefix + "value." + name] = x.scale;
}

void Trainer::save(int64_t epoch) const {
  if (place_.path.empty()) return;
  Checkpoint c;
  c.epoch = epoch;
  c.best_epoch = result_.best_epoch;
  c.best_metric = best_metric_;
  c.epochs = result_.epochs;
  for (const auto& [name, tensor] : learned_) c.tensors["now." + name] = from_torch(*tensor);
  for (const auto& [name, tensor] : averages_) c.tensors["average." + name] = from_torch(tensor);
  for (const auto& [name, x] : executor_.buffers()) c.tensors["buffer." + name] = from_torch(x);
  for (const auto& [name, grid] : executor_.weight_grids()) {
    c.tensors["weight_scale." + name] = from_torch(grid.log_scale());
  }
  add_state("best.", result_.state, c.tensors);
  std::map<std::string, Tensor> own;
  for (const auto& method : methods_) method->save(own);
  for (auto& [name, x] : own) c.tensors["method." + name] = std::move(x);
  std::ostringstream blob;
  torch::save(*optimizer_, blob);
  c.tensors["optimizer"] = bytes_tensor(blob.str());
  write_checkpoint(place_, c);
}

/// Returns the epochs that are done.
int64_t Trainer::load() {
  if (!place_.resume) return 0;
  const Checkpoint c = read_checkpoint(place_);
  const torch::NoGradGuard guard;
  const auto fill = [&](const std::string& name, torch::Tensor& to) {
    const auto found = c.tensors.find(name);
    if (found == c.tensors.end() || found->second.elements() != to.numel()) {
      throw Error(ErrorCode::corrupt_data, fmt::format("{}: no '{}'", place_.path, name));
    }
    to.copy_(to_torch(found->second).reshape(to.sizes()));
  };
  for (auto& [name, tensor] : learned_) fill("now." + name, *tensor);
  for (auto& [name, tensor] : averages_) fill("average." + name, tensor);
  for (auto& [name, tensor] : executor_.buffers()) fill("buffer." + name, tensor);
  for (auto& [name, grid] : executor_.weight_grids()) {
    fill("weight_scale." + name, grid.log_scale());
  }
  const auto blob = c.tensors.find("optimizer");
  if (blob == c.tensors.end()) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: no optimizer", place_.path));
  }
  const auto text = blob->second.data<uint8_t>();
  std::istringstream in(std::string(text.begin(), text.end()));
  try {
    torch::load(*optimizer_, in);
  } catch (const c10::Error&) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("{}: the optimizer's state cannot be read", place_.path));
  }
  std::map<std::string, Tensor> own;
  const std::string prefix = "method.";
  for (const auto& [name, x] : c.tensors) {
    if (name.starts_with(prefix)) own[name.substr(prefix.size())] = x;
  }
  for (const auto& method : methods_) method->load(own);
  result_.epochs = c.epochs;
  result_.best_epoch = c.best_epoch;
  best_metric_ = c.best_metric;
  result_.state = state();
  for (auto& [name, x] : result_.state.parameters) x = c.tensors.at("best.parameter." + name);
  for (auto& [name, x] : result_.state.weights) x.scale = c.tensors.at("best.weight." + name);
  for (auto& [name, x] : result_.state.activations) x.scale = c.tensors.at("best.value." + name);
  return c.epoch;
}

TrainResult Trainer::run() {
  for (int64_t number = load() + 1; number <= options_.epochs; ++number) {
    EpochRecord record = epoch(number);
    judge(record);
    result_.epochs.push_back(record);
    if (hooks_.epoch) hooks_.epoch(record);
    save(number);
    const bool tired = options_.patience > 0 && number - result_.best_epoch >= options_.patience;
    if (tired) break;
  }
  return std::move(result_);
}

}  // namespace

TrainResult run_training(const TrainPlan& plan, const Dataset& data, const TrainOptions& options,
                         const TrainHooks& hooks, const CheckpointPlace& place) {
  check_options(options);
  if (options.epochs == 0) throw Error(ErrorCode::invalid_argument, "0 epochs train nothing");
  return Trainer(plan, data, options, hooks, place).run();
}

}  // namespace narrow::train
