// SPDX-License-Identifier: Apache-2.0
// The quantized model against the float one on the evaluation samples. Float results are computed
// once and kept where they are small.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/graph/graph.h"
#include "narrow/pipeline/recipe.h"
#include "narrow/pipeline/samples.h"
#include "narrow/report/quantize_report.h"
#include "narrow/runtime/session.h"

namespace narrow {

class Verifier {
 public:
  /// Runs the float model over the samples. `samples.evaluation` is not null.
  Verifier(const Graph& float_graph, const SampleSets& samples, int threads, Progress progress);

  /// The float model's own result: value and what is measured.
  const Verification& baseline() const { return baseline_; }

  /// `hashes`, if wanted: of the quantized model's outputs, by batch.
  Verification measure(const Session& quantized, std::vector<std::string>* hashes = nullptr) const;

  /// Batches whose outputs differ from those that gave `hashes`.
  int64_t count_different(const Session& other, const std::vector<std::string>& hashes) const;

 private:
  std::shared_ptr<const Dataset> data_;
  Session float_session_;
  int threads_;
  int64_t batch_;
  Progress progress_;
  Verification baseline_;
  std::vector<std::vector<Tensor>> outputs_;  // by batch; empty: too large to keep
};

/// Empty: passed. Otherwise what fell short, as "top1 fell by 1.20 points, 0.50 are allowed".
std::string gate_failure(const Recipe& recipe, const Verification& verification);
/// Throws invalid_argument where the gate cannot be applied to this model's outputs.
void check_gate(const Recipe& recipe, const Verification& baseline);

}  // namespace narrow
