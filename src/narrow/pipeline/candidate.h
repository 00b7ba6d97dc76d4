// SPDX-License-Identifier: Apache-2.0
// One quantized form of a model, in memory: assignment, plan and graph. Internal to pipeline/.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "narrow/calibrate/observer.h"
#include "narrow/graph/graph.h"
#include "narrow/pipeline/moments.h"
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

/// What calibration found; parts that the mode does not need are empty.
struct Knowledge {
  Statistics statistics;
  LayerMoments moments;
};

/// Quantizes a copy of the float graph: assignment, weights, biases (corrected by the recipe's
/// `fast`, or by `shifts`, measured per layer), QDQ pairs.
using BiasShifts = std::map<std::string, std::vector<double>>;  // by node
Candidate make_candidate(const Graph& float_graph, const QuantizeOptions& options,
                         const Recipe& recipe, const Knowledge& knowledge,
                         const BiasShifts& shifts = {});

/// Bias correction `empirical`: layer after layer, the difference of the mean outputs of the float
/// model and of the model quantized so far, over the data.
BiasShifts measure_shifts(const Graph& float_graph, const QuantizeOptions& options,
                          const Recipe& recipe, const Knowledge& knowledge, const Dataset& data,
                          const MomentOptions& run);

/// What the report says of each layer; `compared` (may be empty) gives the output errors.
std::vector<QuantizedLayer> describe_layers(const Candidate& candidate,
                                            const std::vector<ValueDifference>& compared);

/// Names of quantized layers, those first that add most noise to what they are given.
std::vector<std::string> most_harmful(const Candidate& candidate,
                                      const std::vector<ValueDifference>& compared);

}  // namespace narrow
