// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/train/engine/kernels.h"

namespace narrow::train {
namespace {

constexpr int64_t kBlock = 65536;  // values of a task

const Tensor& found(const std::map<std::string, Tensor>& from, const std::string& name,
                    size_t elements) {
  const auto at = from.find(name);
  if (at == from.end() || at->second.elements() != static_cast<int64_t>(elements) ||
      at->second.dtype() != DType::float32) {
    throw Error(ErrorCode::corrupt_data, fmt::format("no state '{}' of the optimizer", name));
  }
  return at->second;
}

}  // namespace

Optimizer::Optimizer(const Learned& learned, const TrainOptions& options)
    : kind_(options.optimizer), momentum_(options.momentum) {
  for (const auto& [name, tensor] : learned) {
    const bool weights = name.starts_with("parameter.") || name.starts_with("adapter_");
    const bool matrix = weights && tensor->dim() >= 2;
    const double pace = name.find("_scale.") != std::string::npos ? options.scale_lr : 1;
    const auto count = static_cast<size_t>(tensor->numel());
    Part part{name, tensor, matrix ? static_cast<float>(options.weight_decay) : 0, pace, {}, {}};
    part.first.resize(count);
    if (kind_ != OptimizerKind::sgd) part.second.resize(count);
    parts_.push_back(std::move(part));
  }
  if (parts_.empty()) throw Error(ErrorCode::invalid_argument, "the model has nothing to train");
}

void Optimizer::update(Part& part, double lr) const {
  const torch::Tensor g = part.x->grad().contiguous();
  const float* gradient = g.data_ptr<float>();
  float* x = part.x->data_ptr<float>();
  AdamStep a;
  a.lr = static_cast<float>(lr * part.pace);
  a.decay = part.decay;
  a.decoupled = kind_ == OptimizerKind::adamw;
  a.correction1 = static_cast<float>(1 - std::pow(0.9, steps_));
  a.correction2 = static_cast<float>(std::sqrt(1 - std::pow(0.999, steps_)));
  const SgdStep s{a.lr, part.decay, static_cast<float>(momentum_)};
  parallel_for(part.x->numel(), kBlock, [&](int64_t begin, int64_t end) {
    float* first = part.first.data() + begin;
    if (kind_ == OptimizerKind::sgd) {
      sgd(s, end - begin, gradient + begin, x + begin, first);
    } else {
      adam(a, end - begin, gradient + begin, x + begin, first, part.second.data() + begin);
    }
  });
}

void Optimizer::step(double lr) {
  ++steps_;
  for (Part& part : parts_) {
    if (part.x->grad().defined()) update(part, lr);
  }
}

void Optimizer::zero_grad() {
  for (Part& part : parts_) part.x->mutable_grad() = torch::Tensor();
}

void Optimizer::save(std::map<std::string, Tensor>& to) const {
  to["steps"] = Tensor::vector(std::vector<int64_t>{steps_});
  for (const Part& part : parts_) {
    to["first." + part.name] = Tensor::vector(part.first);
    if (!part.second.empty()) to["second." + part.name] = Tensor::vector(part.second);
  }
}

void Optimizer::load(const std::map<std::string, Tensor>& from) {
  const auto steps = from.find("steps");
  if (steps == from.end() || steps->second.elements() != 1 ||
      steps->second.dtype() != DType::int64) {
    throw Error(ErrorCode::corrupt_data, "no number of steps of the optimizer");
  }
  steps_ = steps->second.data<int64_t>()[0];
  for (Part& part : parts_) {
    const auto fill = [&](const char* prefix, std::vector<float>& to) {
      if (to.empty()) return;
      const auto values = found(from, prefix + part.name, to.size()).data<float>();
      std::copy(values.begin(), values.end(), to.begin());
    };
    fill("first.", part.first);
    fill("second.", part.second);
  }
}

}  // namespace narrow::train
