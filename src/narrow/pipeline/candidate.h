// SPDX-License-Identifier: Apache-2.0
// One quantized form of a model, in memory: assignment, plan and graph. Internal to pipeline/.
#pragma once

#include <string>
#include <vector>

#include "narrow/calibrate/observer.h"
#include "narrow/graph/graph.h"
#include "narrow/pipeline/recipe.h"
#include "narrow/ptq/assign.h"
#include "narrow/ptq/plan.h"
#include "narrow/report/quantize_report.h"

namespace narrow {

struct Candidate {
  Assignment assignment;
  QuantizationPlan plan;
  Graph graph;  // float operators with QDQ pairs, or the dynamic form
};

/// The recipe's options with every open field filled in.
QuantizeOptions resolved_options(const Recipe& recipe);

/// Quantizes a copy of the float graph. `statistics` may lack values only if the mode needs none.
Candidate make_candidate(const Graph& float_graph, const QuantizeOptions& options,
                         const ObserverOptions& observer, const Statistics& statistics);

/// What the report says of each layer; `compared` (may be empty) gives the output errors.
std::vector<QuantizedLayer> describe_layers(const Candidate& candidate,
                                            const std::vector<ValueDifference>& compared);

/// Names of quantized layers, those first that add most noise to what they are given.
std::vector<std::string> most_harmful(const Candidate& candidate,
                                      const std::vector<ValueDifference>& compared);

}  // namespace narrow
