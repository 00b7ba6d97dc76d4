// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/loss.h"

#include <fmt/format.h>

#include "narrow/core/error.h"
#include "narrow/train/engine/bridge.h"

namespace narrow::train {

Loss::Loss(const TrainPlan& plan, const TrainOptions& options, const TrainHooks& hooks,
           bool labelled)
    : options_(options), hooks_(hooks), sequences_(plan.sequences) {
  const bool labels = options.loss == LossKind::cross_entropy ||
                      (options.loss == LossKind::distill && options.distill_weight < 1);
  if (labels && !labelled) {
    throw Error(ErrorCode::invalid_argument, "these data have no labels",
                "train with --loss distill against the float model's outputs");
  }
  if (options.loss != LossKind::cross_entropy && !hooks.teacher) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("loss {} needs a teacher", to_string(options.loss)),
                "give --teacher MODEL");
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
  const torch::Tensor target = torch::tensor(labels, torch::kInt64);
  return at::cross_entropy_loss(logits, target, /*weight=*/{}, at::Reduction::Mean,
                                /*ignore_index=*/-100, options_.label_smoothing);
}

torch::Tensor Loss::teacher(const torch::Tensor& y, const TakenBatch& batch) const {
  const std::vector<Tensor> outputs = hooks_.teacher(batch.raw);
  const torch::Tensor wanted = to_torch(outputs.at(output_)).reshape(y.sizes());
  if (options_.loss == LossKind::mse) return at::mse_loss(y, wanted);
  const double t = options_.temperature;
  const torch::Tensor target =
      torch::log_softmax((probabilities_ ? wanted.clamp_min(1e-12).log() : wanted) / t, 1);
  const torch::Tensor ours = torch::log_softmax(y / t, 1);
  const torch::Tensor sum = at::kl_div(ours, target, at::Reduction::Sum, /*log_target=*/true);
  return sum * (t * t / static_cast<double>(y.size(0)));
}

torch::Tensor Loss::operator()(const std::vector<torch::Tensor>& outputs,
                               const TakenBatch& batch) const {
  torch::Tensor y = outputs.at(output_);
  if (options_.loss == LossKind::mse) return teacher(y, batch);
  y = sequences_ ? y.reshape({-1, y.size(-1)}) : y.reshape({y.size(0), -1});
  if (probabilities_) y = y.clamp_min(1e-12).log();  // softmax of it is y again
  if (options_.loss == LossKind::cross_entropy) return hard(y, batch.labels);
  const double soft = options_.distill_weight;
  torch::Tensor loss = teacher(y, batch) * soft;
  if (soft < 1) loss = loss + hard(y, batch.labels) * (1 - soft);
  return loss;
}

}  // namespace narrow::train
