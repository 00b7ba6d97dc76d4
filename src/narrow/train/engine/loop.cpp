// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/loop.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"
#include "narrow/train/augment.h"
#include "narrow/train/checkpoint.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/device.h"
#include "narrow/train/engine/executor.h"
#include "narrow/train/engine/loss.h"
#include "narrow/train/engine/method.h"
#include "narrow/train/engine/optimizer.h"
#include "narrow/train/engine/torch.h"

namespace narrow::train {
namespace {

/// One seed for each epoch and use, so that a resumed run draws what an uninterrupted one drew.
uint64_t seed_of(uint64_t seed, int64_t epoch, uint64_t use) {
  Rng rng(seed ^ (static_cast<uint64_t>(epoch) << 8) ^ (use << 56));
  return rng.next();
}

/// Each step frees what the next one allocates: the C library keeps it instead of giving it back to
/// the system, which would clear every page again.
void keep_freed_memory() {
#ifdef M_MMAP_MAX
  mallopt(M_MMAP_MAX, 0);  // large tensors too: a threshold goes to 32 MiB at most
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

class Threads {
 public:
  explicit Threads(int threads) : limit_(threads), saved_(at::get_num_threads()) {
    at::set_num_threads(threads > 0 ? threads : available_threads());
  }
  ~Threads() { at::set_num_threads(saved_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  ThreadLimit limit_;
  OpenmpWork libtorch_;
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
        executor_(plan, options.qat, open_device(options.device)),
        loss_(plan, options, hooks, data.labelled()),
        whole_batch_(options.batch) {
    for (auto& [name, tensor] : executor_.parameters()) learned_["parameter." + name] = &tensor;
    for (auto& [name, adapter] : executor_.adapters()) {
      learned_["adapter_a." + name] = &adapter.a;
      learned_["adapter_b." + name] = &adapter.b;
    }
    for (auto& [name, x] : loss_.projections()) learned_["projection." + name] = &x;
    for (auto& [name, grid] : executor_.weight_grids()) add_grid("weight", name, grid);
    for (auto& [name, grid] : executor_.activation_grids()) add_grid("value", name, grid);
    methods_ = make_methods(executor_, learned_, plan, options);
    optimizer_.emplace(learned_, options);
    samples_ = data_.size();
    if (hooks.ranks != nullptr) {
      // Each rank has a sample of every batch.
      whole_batch_ *= hooks.ranks->size();
      const int64_t rest = samples_ % whole_batch_;
      if (rest < hooks.ranks->size()) samples_ -= rest;
    }
    if (samples_ == 0) throw Error(ErrorCode::invalid_argument, "the data have no samples");
    steps_per_epoch_ =
        (samples_ + whole_batch_ * options.accumulate - 1) / (whole_batch_ * options.accumulate);
    if (options.ema > 0) {
      for (auto& [name, tensor] : learned_) averages_[name] = tensor->detach().clone();
    }
  }

  TrainResult run();

 private:
  void add_grid(const std::string& kind, const std::string& name, Grid& grid);
  TakenBatch take(std::span<const int64_t> indices, const Augmentation& how, uint64_t seed) const;
  RunMode how(bool training, bool batch_statistics, double share) const {
    return {training, batch_statistics, share, options_.bfloat16, options_.portable, hooks_.ranks};
  }
  torch::Tensor loss_of(const TakenBatch& batch, int64_t epoch);
  void reestimate_norms(int64_t epoch);
  std::pair<int64_t, int64_t> own_part(int64_t count) const;
  double summed(double value) const;
  void share_gradients();
  void step(int64_t number);
  EpochRecord epoch(int64_t number, int64_t first, double loss_sum);
  TrainState state() const;
  void judge(EpochRecord& record);
  void save(int64_t epoch, int64_t samples, double loss_sum) const;
  Checkpoint load();
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
  std::optional<Optimizer> optimizer_;
  int64_t whole_batch_;  // of all ranks
  int64_t samples_ = 0;  // of an epoch
  int64_t steps_per_epoch_ = 1;
  TrainResult result_;
  double best_metric_ = 0;
};

void Trainer::add_grid(const std::string& kind, const std::string& name, Grid& grid) {
  const auto learn = [&](const char* what, torch::Tensor& tensor) {
    tensor.set_requires_grad(true);
    learned_[kind + what + name] = &tensor;
  };
  if (grid.rule().learn_scale) learn("_scale.", grid.log_scale());
  if (grid.rule().learn_zero) learn("_zero.", grid.zero());
}

TakenBatch Trainer::take(std::span<const int64_t> indices, const Augmentation& how,
                         uint64_t seed) const {
  Batch batch = data_.get(indices);
  TakenBatch taken;
  taken.labels = std::move(batch.labels);
  for (auto& [name, tensor] : batch.inputs) {
    Tensor x = tensor;
    if (x.rank() == 4 && x.dtype() == DType::float32) {
      x = augment(x, how, seed);
    }
    taken.inputs[name] = to_torch(x);
    if (hooks_.teacher) taken.raw[name] = std::move(x);
  }
  return taken;
}

torch::Tensor Trainer::loss_of(const TakenBatch& batch, int64_t epoch) {
  const bool moves = options_.norm_freeze == 0 || epoch <= options_.norm_freeze;
  torch::Tensor loss = loss_(executor_.run(batch.inputs, how(true, moves, -1)), batch);
  for (const auto& method : methods_) {
    const torch::Tensor penalty = method->penalty();
    if (penalty.defined()) loss = loss + beside(penalty, loss);
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
  share_gradients();
  const StepInfo info{number, steps_per_epoch_ * options_.epochs, steps_per_epoch_};
  for (const auto& method : methods_) method->before_step(info);
  std::vector<torch::Tensor> all;
  for (auto& [name, tensor] : learned_) all.push_back(*tensor);
  if (options_.clip_norm > 0) torch::nn::utils::clip_grad_norm_(all, options_.clip_norm);
  const double lr = learning_rate(options_, number, steps_per_epoch_);
  optimizer_->step(lr);
  optimizer_->zero_grad();
  for (const auto& method : methods_) method->after_step(info);
  if (options_.ema == 0) return;
  const torch::NoGradGuard guard;
  for (auto& [name, average] : averages_) average.lerp_(*learned_.at(name), 1 - options_.ema);
}

/// This rank's part of a batch.
std::pair<int64_t, int64_t> Trainer::own_part(int64_t count) const {
  if (hooks_.ranks == nullptr) return {0, count};
  const int64_t rank = hooks_.ranks->rank();
  const int64_t size = hooks_.ranks->size();
  return {count * rank / size, count * (rank + 1) / size};
}

/// Over ranks.
double Trainer::summed(double value) const {
  if (hooks_.ranks == nullptr) return value;
  auto sum = static_cast<float>(value);
  hooks_.ranks->sum({&sum, 1});
  return sum;
}

/// One buffer for all: one message.
void Trainer::share_gradients() {
  if (hooks_.ranks == nullptr) return;
  std::vector<torch::Tensor> gradients;
  std::vector<torch::Tensor> flat;
  for (auto& [name, tensor] : learned_) {
    if (!tensor->grad().defined()) continue;
    gradients.push_back(tensor->grad());
    flat.push_back(tensor->grad().reshape({-1}));
  }
  torch::Tensor all = torch::cat(flat).contiguous();
  hooks_.ranks->sum({all.data_ptr<float>(), static_cast<size_t>(all.numel())});
  int64_t at = 0;
  for (torch::Tensor& gradient : gradients) {
    gradient.copy_(all.narrow(0, at, gradient.numel()).reshape(gradient.sizes()));
    at += gradient.numel();
  }
  // The pace of a scale and of a zero point is that of the values of the whole batch.
  for (auto& [group, grid] : executor_.activation_grids()) {
    if (!grid.rule().paced) continue;
    for (torch::Tensor* learned : {&grid.log_scale(), &grid.zero()}) {
      torch::Tensor& gradient = learned->mutable_grad();
      if (gradient.defined()) gradient.div_(std::sqrt(hooks_.ranks->size()));
    }
  }
}

/// From sample `first` on, the ones before having lost `loss_sum` together.
EpochRecord Trainer::epoch(int64_t number, int64_t first, double loss_sum) {
  const auto start = Clock::now();
  EpochRecord record;
  record.epoch = number;
  std::vector<int64_t> order(static_cast<size_t>(data_.size()));
  std::iota(order.begin(), order.end(), 0);
  Rng shuffler(seed_of(options_.seed, number, 1));
  shuffler.shuffle<int64_t>(order);
  const int64_t total = samples_;
  const int64_t of_a_step = whole_batch_ * options_.accumulate;
  const int64_t already = first;
  for (; first < total; first += whole_batch_) {
    hooks_.progress.check_cancelled();
    const int64_t count = std::min(whole_batch_, total - first);
    const int64_t step_number = (number - 1) * steps_per_epoch_ + first / of_a_step;
    const auto [begin, end] = own_part(count);
    // What is drawn depends on the place in the data alone, so that a run may go on from anywhere.
    const auto place = static_cast<uint64_t>(first + begin);
    torch::manual_seed(seed_of(options_.seed, number, 3) + place);
    const TakenBatch batch = take({order.data() + first + begin, static_cast<size_t>(end - begin)},
                                  options_.augment, seed_of(options_.seed, number, 2) + place);
    torch::Tensor loss = loss_of(batch, number);
    // Of a batch that is shared, the gradients and losses of all ranks add up to the mean.
    if (end - begin != count) {
      loss = loss * (static_cast<double>(end - begin) / static_cast<double>(count));
    }
    const double value = summed(loss.item<double>());
    if (!std::isfinite(value)) diverged(batch, number, step_number + 1);
    loss_sum += value * static_cast<double>(count);
    (options_.accumulate > 1 ? loss / options_.accumulate : loss).backward();
    const int64_t done = first + count;
    if (done % of_a_step == 0 || done == total) {
      record.lr = learning_rate(options_, step_number, steps_per_epoch_);
      step(step_number);
      const bool due = place_.every_steps > 0 && (step_number + 1) % place_.every_steps == 0;
      if (due && done < total) save(number - 1, done, loss_sum);
    }
    hooks_.progress.report(fmt::format("epoch {}/{}, loss {:.4f}", number, options_.epochs,
                                       loss_sum / static_cast<double>(done)),
                           (number - 1) * total + done, options_.epochs * total);
  }
  record.loss = loss_sum / static_cast<double>(total);
  record.seconds = seconds_since(start);
  record.samples_per_second = static_cast<double>(total - already) / record.seconds;
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
    s.weights[name] = grid.params(now("weight_scale." + name, grid.log_scale()), grid.zero());
  }
  for (const auto& [name, adapter] : executor_.adapters()) {
    LowRank low = adapter;
    low.a = now("adapter_a." + name, adapter.a);
    low.b = now("adapter_b." + name, adapter.b);
    if (!low.merged) {
      Adapter& out = s.adapters[name] = plan_.adapters.at(name);
      out.a = from_torch(low.a);
      out.b = from_torch(low.b);
      continue;
    }
    // The sum as the executor has it, bit for bit: codes are made of it.
    const torch::NoGradGuard guard;
    const torch::Tensor w = to_torch(*plan_.graph.constant(*plan_.graph.find_value(name)));
    s.parameters[name] = from_torch(w + low.change(w));
  }
  for (const auto& [value, group] : executor_.groups()) {
    const Grid& grid = executor_.activation_grids().at(group);
    s.activations[value] = grid.params(now("value_scale." + group, grid.log_scale()),
                                       now("value_zero." + group, grid.zero()));
  }
  return s;
}

/// Running statistics of batch norms as the means over some batches under the weights that come
/// out, averaged ones too: what moved along with the weights lags behind them.
void Trainer::reestimate_norms(int64_t epoch) {
  if (options_.norm_batches == 0 || executor_.buffers().empty()) return;
  const torch::NoGradGuard guard;
  const auto exchange = [&] {
    for (auto& [name, average] : averages_) {
      const torch::Tensor now = learned_.at(name)->detach().clone();
      learned_.at(name)->copy_(average);
      average.copy_(now);
    }
  };
  exchange();
  std::vector<int64_t> order(static_cast<size_t>(data_.size()));
  std::iota(order.begin(), order.end(), 0);
  Rng(seed_of(options_.seed, epoch, 4)).shuffle<int64_t>(order);
  const int64_t batches =
      std::min(options_.norm_batches, std::max<int64_t>(1, samples_ / whole_batch_));
  for (int64_t i = 0; i < batches; ++i) {
    const int64_t first = i * whole_batch_;
    const auto [begin, end] = own_part(std::min(whole_batch_, samples_ - first));
    const TakenBatch batch =
        take({order.data() + first + begin, static_cast<size_t>(end - begin)}, {}, 0);
    executor_.run(batch.inputs, how(false, true, 1 / static_cast<double>(i + 1)));
  }
  exchange();
}

void Trainer::judge(EpochRecord& record) {
  bool measured = static_cast<bool>(hooks_.evaluate);
  if (hooks_.ranks != nullptr) measured = hooks_.ranks->from_first(measured ? 1 : 0) != 0;
  if (!measured) {
    result_.state = state();
    result_.best_epoch = record.epoch;
    return;
  }
  TrainState now = state();
  // The first rank measures, the others learn what it found.
  record.metric = hooks_.evaluate ? hooks_.evaluate(now) : 0;
  if (hooks_.ranks != nullptr) record.metric = hooks_.ranks->from_first(*record.metric);
  const double sign = hooks_.smaller_is_better ? -1 : 1;
  if (result_.best_epoch != 0 && sign * *record.metric <= sign * best_metric_) return;
  // A state that is not to come out gives way to the next.
  const bool settled =
      std::ranges::all_of(methods_, [](const auto& method) { return method->settled(); });
  best_metric_ = settled ? *record.metric : sign * std::numeric_limits<double>::lowest();
  result_.best_epoch = record.epoch;
  result_.state = std::move(now);
}

void add_state(const std::string& prefix, const TrainState& s, std::map<std::string, Tensor>& to) {
  for (const auto& [name, x] : s.parameters) to[prefix + "parameter." + name] = x;
  for (const auto& [name, x] : s.weights) to[prefix + "weight." + name] = x.scale;
  for (const auto& [name, x] : s.activations) {
    to[prefix + "value." + name] = x.scale;
    if (x.zero_point.defined()) to[prefix + "value_zero." + name] = x.zero_point;
  }
  for (const auto& [name, x] : s.adapters) {
    to[prefix + "adapter_a." + name] = x.a;
    to[prefix + "adapter_b." + name] = x.b;
  }
}

void Trainer::save(int64_t epoch, int64_t samples, double loss_sum) const {
  if (place_.path.empty() || (hooks_.ranks != nullptr && !hooks_.ranks->first())) return;
  Checkpoint c;
  c.epoch = epoch;
  c.samples = samples;
  c.loss_sum = loss_sum;
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
  own.clear();
  optimizer_->save(own);
  for (auto& [name, x] : own) c.tensors["optimizer." + name] = std::move(x);
  write_checkpoint(place_, c);
}

/// What the checkpoint says of the way; an empty one at the beginning.
Checkpoint Trainer::load() {
  if (!place_.resume) return {};
  Checkpoint c = read_checkpoint(place_);
  const torch::NoGradGuard guard;
  const auto of = [&](const std::string& name) -> const Tensor& {
    const auto found = c.tensors.find(name);
    if (found == c.tensors.end()) {
      throw Error(ErrorCode::corrupt_data, fmt::format("{}: no '{}'", place_.path, name));
    }
    return found->second;
  };
  const auto fill = [&](const std::string& name, torch::Tensor& to) {
    const Tensor& from = of(name);
    if (from.elements() != to.numel()) {
      throw Error(ErrorCode::corrupt_data,
                  fmt::format("{}: '{}' has another size", place_.path, name));
    }
    to.copy_(to_torch(from).reshape(to.sizes()));
  };
  for (auto& [name, tensor] : learned_) fill("now." + name, *tensor);
  for (auto& [name, tensor] : averages_) fill("average." + name, tensor);
  for (auto& [name, tensor] : executor_.buffers()) fill("buffer." + name, tensor);
  for (auto& [name, grid] : executor_.weight_grids()) {
    fill("weight_scale." + name, grid.log_scale());
  }
  const auto own = [&](const std::string& prefix) {
    std::map<std::string, Tensor> out;
    for (const auto& [name, x] : c.tensors) {
      if (name.starts_with(prefix)) out[name.substr(prefix.size())] = x;
    }
    return out;
  };
  optimizer_->load(own("optimizer."));
  for (const auto& method : methods_) method->load(own("method."));
  result_.epochs = c.epochs;
  result_.best_epoch = c.best_epoch;
  best_metric_ = c.best_metric;
  if (c.best_epoch == 0) return c;  // in the first epoch
  result_.state = state();
  for (auto& [name, x] : result_.state.parameters) x = of("best.parameter." + name);
  for (auto& [name, x] : result_.state.weights) x.scale = of("best.weight." + name);
  for (auto& [name, x] : result_.state.activations) {
    x.scale = of("best.value." + name);
    if (x.zero_point.defined()) x.zero_point = of("best.value_zero." + name);
  }
  for (auto& [name, x] : result_.state.adapters) {
    x.a = of("best.adapter_a." + name);
    x.b = of("best.adapter_b." + name);
  }
  return c;
}

TrainResult Trainer::run() {
  const Checkpoint from = load();
  for (int64_t number = from.epoch + 1; number <= options_.epochs; ++number) {
    const bool inside = number == from.epoch + 1;
    EpochRecord record = epoch(number, inside ? from.samples : 0, inside ? from.loss_sum : 0);
    reestimate_norms(number);
    judge(record);
    result_.epochs.push_back(record);
    if (hooks_.epoch) hooks_.epoch(record);
    save(number, 0, 0);
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
  keep_freed_memory();
  return Trainer(plan, data, options, hooks, place).run();
}

}  // namespace narrow::train
