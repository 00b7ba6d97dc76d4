// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/loss.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/train/engine/bridge.h"
#include "narrow/train/engine/device.h"

namespace narrow::train {

Loss::Loss(const TrainPlan& plan, const TrainOptions& options, const TrainHooks& hooks,
           bool labelled)
    : options_(options), hooks_(hooks), matches_(plan.matches), sequences_(plan.sequences) {
  const bool labels = options.loss == LossKind::cross_entropy ||
                      (options.loss == LossKind::distill && options.distill_weight < 1);
  if (labels && !labelled) {
    throw Error(ErrorCode::invalid_argument, "these data have no labels",
                "train with --loss distill against the float model's outputs");
  }
  if (learns_from_teacher(options) && !hooks.teacher) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("loss {} needs a teacher", to_string(options.loss)),
                "give --teacher MODEL");
  }
  Rng rng(options.seed);
  for (const FeatureMatch& m : matches_) {
    if (!m.projects()) continue;
    Tensor start(DType::float32, {m.teacher.channels, m.student.channels});
    const float deviation = 1 / std::sqrt(static_cast<float>(m.student.channels));
    for (float& v : start.mutable_data<float>()) v = deviation * static_cast<float>(rng.normal());
    projections_[m.student.name] = to_torch(start).set_requires_grad(true);
  }
  const Graph& graph = plan.graph;
  for (size_t i = 0; i < graph.outputs().size(); ++i) {
    if (graph.value(graph.outputs()[i]).name == plan.output) output_ = i;
  }
  const Node* producer = graph.producer(graph.outputs().at(output_));
  probabilities_ = producer != nullptr && producer->is("Softmax");
}

torch::Tensor Loss::hard(const torch::Tensor& logits, const std::vector<int64_t>& labels) const {
  const int64_t classes = logits.size(1);
  for (const int64_t label : labels) {
    if (label >= 0 && label < classes) continue;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a label is {}, the model has {} outputs", label, classes));
  }
  const torch::Tensor target = torch::tensor(labels, torch::kInt64).to(logits.device());
  return at::cross_entropy_loss(logits, target, /*weight=*/{}, at::Reduction::Mean,
                                /*ignore_index=*/-100, options_.label_smoothing);
}

torch::Tensor Loss::teacher(const torch::Tensor& y, const std::vector<Tensor>& taught) const {
  const torch::Tensor wanted = to_torch(taught.at(output_)).reshape(y.sizes()).to(y.device());
  if (options_.loss == LossKind::mse) return at::mse_loss(y, wanted);
  const double t = options_.temperature;
  const torch::Tensor target =
      torch::log_softmax((probabilities_ ? wanted.clamp_min(1e-12).log() : wanted) / t, 1);
  const torch::Tensor ours = torch::log_softmax(y / t, 1);
  const torch::Tensor sum = at::kl_div(ours, target, at::Reduction::Sum, /*log_target=*/true);
  return sum * (t * t / static_cast<double>(y.size(0)));
}

torch::Tensor Loss::distance(const FeatureMatch& match, torch::Tensor s,
                             const std::vector<Tensor>& taught) const {
  const torch::Tensor t = to_torch(taught.at(match.teacher.output)).to(s.device());
  if (match.projects()) {
    // Channels last, which a product of matrices wants.
    const bool images = s.dim() > 3;
    if (images) s = s.movedim(1, -1);
    s = torch::matmul(s, beside(projections_.at(match.student.name), s).t());
    if (images) s = s.movedim(-1, 1);
  }
  if (s.sizes() != t.sizes()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' and the teacher's '{}' have other shapes for this batch",
                            match.student.name, match.teacher.name),
                "match layers of one resolution");
  }
  const double size = std::max(t.square().mean().item<double>(), 1e-12);
  return at::mse_loss(s, t) / size;
}

torch::Tensor Loss::judged(torch::Tensor y, const std::vector<Tensor>& taught,
                           const TakenBatch& batch) const {
  if (options_.loss == LossKind::mse) return teacher(y, taught);
  y = sequences_ ? y.reshape({-1, y.size(-1)}) : y.reshape({y.size(0), -1});
  if (probabilities_) y = y.clamp_min(1e-12).log();  // softmax of it is y again
  if (options_.loss == LossKind::cross_entropy) return hard(y, batch.labels);
  const double soft = options_.distill_weight;
  torch::Tensor loss = teacher(y, taught) * soft;
  if (soft < 1) loss = loss + hard(y, batch.labels) * (1 - soft);
  return loss;
}

torch::Tensor Loss::operator()(const std::vector<torch::Tensor>& outputs,
                               const TakenBatch& batch) const {
  std::vector<Tensor> taught;
  if (hooks_.teacher) taught = hooks_.teacher(batch.raw);
  torch::Tensor loss = judged(outputs.at(output_), taught, batch);
  for (const FeatureMatch& match : matches_) {
    loss = loss + distance(match, outputs.at(match.student.output), taught) * options_.match.weight;
  }
  return loss;
}

}  // namespace narrow::train
