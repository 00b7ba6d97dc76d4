// SPDX-License-Identifier: Apache-2.0
// What a run makes small: the distance to labels or to a teacher.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "narrow/train/engine/torch.h"
#include "narrow/train/trainer.h"

namespace narrow::train {

/// Samples as they go into the network.
struct TakenBatch {
  std::map<std::string, torch::Tensor> inputs;
  std::map<std::string, Tensor> raw;  // the same, for the teacher; empty without one
  std::vector<int64_t> labels;
};

class Loss {
 public:
  /// Throws invalid_argument where labels or a teacher are missing. The arguments must outlive it.
  Loss(const TrainPlan& plan, const TrainOptions& options, const TrainHooks& hooks, bool labelled);
  /// Learned beside the network: from the student's channels to the teacher's, by a name of each.
  std::map<std::string, torch::Tensor>& projections() { return projections_; }

  /// `outputs` of the graph for this batch. Throws invalid_argument for a label out of range.
  torch::Tensor operator()(const std::vector<torch::Tensor>& outputs,
                           const TakenBatch& batch) const;

 private:
  torch::Tensor hard(const torch::Tensor& logits, const std::vector<int64_t>& labels) const;
  torch::Tensor judged(torch::Tensor y, const std::vector<Tensor>& taught,
                       const TakenBatch& batch) const;
  torch::Tensor teacher(const torch::Tensor& y, const std::vector<Tensor>& taught) const;
  torch::Tensor distance(const FeatureMatch& match, torch::Tensor s,
                         const std::vector<Tensor>& taught) const;

  const TrainOptions& options_;
  const TrainHooks& hooks_;
  const std::vector<FeatureMatch>& matches_;
  std::map<std::string, torch::Tensor> projections_;  // [teacher's channels, student's]
  size_t output_ = 0;
  bool sequences_ = false;
  bool probabilities_ = false;  // the output is a softmax
};

}  // namespace narrow::train
