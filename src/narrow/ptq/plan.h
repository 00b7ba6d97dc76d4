// SPDX-License-Identifier: Apache-2.0
// From an assignment and statistics to everything that goes into the graph: grids of activations,
// codes of weights and biases.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "narrow/calibrate/observer.h"
#include "narrow/graph/qdq.h"
#include "narrow/ptq/assign.h"
#include "narrow/ptq/moments.h"
#include "narrow/ptq/targets.h"

namespace narrow {

/// The range of every assigned activation: of the pooled statistics of its sources, where a range
/// that the statistics override counts instead. Throws not_found for a value without statistics,
/// numeric_failure where nothing finite was seen.
std::map<std::string, Range> activation_ranges(const Assignment& assignment,
                                               const Statistics& statistics,
                                               const ObserverOptions& observer);

/// The grid of every assigned activation, for its range. Throws internal for one without a range.
std::map<std::string, QuantParams> activation_grids(const Assignment& assignment,
                                                    const std::map<std::string, Range>& ranges);

struct LayerOutcome {
  std::string node;
  double weight_sqnr_db = 0;
  std::vector<int64_t> widened;  // channels whose scale was enlarged for the bias
};

struct QuantizationPlan {
  QdqPlan qdq;
  std::vector<LayerOutcome> layers;  // as in the assignment
  std::vector<std::string> notes;
};

struct PlanOptions {
  LayerMoments moments;  // may be empty; weigh the errors of weights with few bits
  /// fast: shifts the biases of layers with moments. (empirical needs runs: pipeline/.)
  BiasCorrection bias_correction = BiasCorrection::none;
  BiasForm bias_form = BiasForm::int32;  // of biases that the correction creates
  /// Grids that are known already, as training leaves them: those of all values, which then need no
  /// ranges, and those of initializers, which then need no search. Empty: none are.
  std::map<std::string, QuantParams> activation_grids;
  std::map<std::string, QuantParams> weight_grids;
};

/// Rounds weights and biases; proves for each integer layer that its accumulators fit int32. Bias
/// correction changes the biases in `graph`, and names those that it creates in the assignment.
/// Throws numeric_failure naming node and tensor: NaN or inf weights, overflow.
QuantizationPlan make_plan(Graph& graph, Assignment& assignment,
                           const std::map<std::string, Range>& ranges,
                           const PlanOptions& options = {});

/// Writes the plan into the graph in the form of the assignment's mode: QDQ pairs (insert_qdq), or
/// DynamicQuantizeLinear with integer products; float16 weights as Cast.
void apply_plan(Graph& graph, const Assignment& assignment, const QuantizationPlan& plan);

}  // namespace narrow
