// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>
#include <span>

#include "narrow/core/cpu.h"
#include "narrow/core/error.h"

namespace narrow::train {
namespace {

constexpr const char* kOptimizers[] = {"sgd", "adam", "adamw"};
constexpr const char* kSchedules[] = {"constant", "step", "cosine"};
constexpr const char* kLosses[] = {"cross_entropy", "mse", "distill"};

template <class Kind>
std::optional<Kind> find(std::span<const char* const> names, std::string_view name) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return static_cast<Kind>(i);
  }
  return std::nullopt;
}

void check(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} is {}, not in {}..{}", name, value, low, high));
}

/// Inputs of an operator that are parameters where they are constants.
struct ParameterInputs {
  const char* op;
  std::vector<size_t> inputs;
};
const ParameterInputs kParameterInputs[] = {
    {"Conv", {1, 2}},
    {"ConvTranspose", {1, 2}},
    {"Gemm", {1, 2}},
    {"MatMul", {1}},
    {"Add", {0, 1}},
    {"BatchNormalization", {1, 2}},
    {"LayerNormalization", {1, 2}},
    {"RMSNormalization", {1}},
    {"Gather", {0}},
    {"PRelu", {1}},
};

}  // namespace

const char* to_string(OptimizerKind kind) {
  return kOptimizers[static_cast<size_t>(kind)];
}
std::optional<OptimizerKind> optimizer_from_string(std::string_view name) {
  return find<OptimizerKind>(kOptimizers, name);
}
const char* to_string(ScheduleKind kind) {
  return kSchedules[static_cast<size_t>(kind)];
}
std::optional<ScheduleKind> schedule_from_string(std::string_view name) {
  return find<ScheduleKind>(kSchedules, name);
}
const char* to_string(LossKind kind) {
  return kLosses[static_cast<size_t>(kind)];
}
std::optional<LossKind> loss_from_string(std::string_view name) {
  return find<LossKind>(kLosses, name);
}
namespace {

/// cpu, cuda, cuda:N.
bool is_device(std::string_view name) {
  if (name == "cpu" || name == "cuda") return true;
  constexpr std::string_view kStart = "cuda:";
  if (!name.starts_with(kStart)) return false;
  const std::string_view number = name.substr(kStart.size());
  constexpr size_t kMostDigits = 2;  // libtorch counts devices in a byte
  return !number.empty() && number.size() <= kMostDigits &&
         std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

bool learns_from_teacher(const TrainOptions& options) {
  return options.loss != LossKind::cross_entropy || options.match.active();
}

void check_options(const TrainOptions& o) {
  constexpr double kMany = 1e9;
  check("epochs", static_cast<double>(o.epochs), 0, 1e6);  // 0: of jobs that only remove
  check("batch", static_cast<double>(o.batch), 1, 1e6);
  check("accumulate", static_cast<double>(o.accumulate), 1, 1e6);
  check("lr", o.lr, 0, 1e3);
  check("scale_lr", o.scale_lr, 0, 1e6);
  check("momentum", o.momentum, 0, 1);
  check("weight_decay", o.weight_decay, 0, 1e3);
  check("clip_norm", o.clip_norm, 0, kMany);
  check("warmup_steps", static_cast<double>(o.warmup_steps), 0, kMany);
  check("step_epochs", static_cast<double>(o.step_epochs), 1, kMany);
  check("gamma", o.gamma, 0, 1);
  check("min_factor", o.min_factor, 0, 1);
  check("label_smoothing", o.label_smoothing, 0, 0.999);
  check("temperature", o.temperature, 0.01, 1e3);
  check("distill_weight", o.distill_weight, 0, 1);
  check("match_weight", o.match.weight, 0, 1e6);
  check("norm_freeze", static_cast<double>(o.norm_freeze), 0, 1e6);
  check("norm_batches", static_cast<double>(o.norm_batches), 0, kMany);
  check("ema", o.ema, 0, 0.999999);
  check("patience", static_cast<double>(o.patience), 0, kMany);
  check("shift", static_cast<double>(o.augment.shift), 0, 1e3);
  check("crop", static_cast<double>(o.augment.crop), 0, 1e3);
  if (!is_device(o.device)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is no device", o.device),
                "cpu, cuda, or cuda:N");
  }
  if (o.bfloat16 && o.device == "cpu" && !cpu_multiplies_bfloat16()) {
    throw Error(ErrorCode::unsupported, "this CPU does not multiply bfloat16 numbers",
                "train in float32, or where the CPU has AVX-512 BF16 or AMX");
  }
  check_options(o.qat);
  check_options(o.prune, o.epochs);
}

double learning_rate(const TrainOptions& o, int64_t step, int64_t steps_per_epoch) {
  if (step < o.warmup_steps) {
    return o.lr * static_cast<double>(step + 1) / static_cast<double>(o.warmup_steps);
  }
  const int64_t total = std::max<int64_t>(1, steps_per_epoch * o.epochs - o.warmup_steps);
  const int64_t at = step - o.warmup_steps;
  switch (o.schedule) {
    case ScheduleKind::constant:
      return o.lr;
    case ScheduleKind::step: {
      const int64_t drops = step / std::max<int64_t>(1, steps_per_epoch * o.step_epochs);
      return o.lr * std::pow(o.gamma, static_cast<double>(drops));
    }
    case ScheduleKind::cosine: {
      const double done = std::min(1.0, static_cast<double>(at) / static_cast<double>(total));
      const double wave = 0.5 * (1 + std::cos(std::numbers::pi * done));
      return o.lr * (o.min_factor + (1 - o.min_factor) * wave);
    }
  }
  return o.lr;
}

std::vector<std::string> trainable_parameters(const Graph& graph) {
  std::set<std::string> names;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    for (const ParameterInputs& row : kParameterInputs) {
      if (!node.is(row.op)) continue;
      for (const size_t i : row.inputs) {
        const Tensor* constant = graph.constant(node.input(i));
        if (constant == nullptr || constant->dtype() != DType::float32) continue;
        // A single number that is added is a choice of whoever made the model.
        if (constant->rank() == 0) continue;
        names.insert(graph.value(node.input(i)).name);
      }
    }
  }
  return {names.begin(), names.end()};
}

void set_parameters(Graph& graph, const TrainState& state) {
  for (const auto& [name, tensor] : state.parameters) {
    const auto id = graph.find_value(name);
    if (!id) throw Error(ErrorCode::internal, fmt::format("no parameter '{}'", name));
    graph.set_constant(*id, tensor);
  }
}

}  // namespace narrow::train
