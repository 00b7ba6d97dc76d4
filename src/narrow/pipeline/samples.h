// SPDX-License-Identifier: Apache-2.0
// Which samples calibrate and which evaluate: drawn by seed over the whole set, never the same.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "narrow/data/dataset.h"
#include "narrow/graph/graph.h"
#include "narrow/pipeline/recipe.h"

namespace narrow {

struct SampleSets {
  std::shared_ptr<const Dataset> calibration;  // may be null: no data
  std::shared_ptr<const Dataset> evaluation;   // may be null
  std::string evaluation_name;                 // for reports
  bool random_evaluation = false;
  std::string data_fingerprint;  // of the whole calibration data set
  int64_t data_size = 0;         // of the whole calibration data set
  std::vector<std::string> notes;
};

/// Opens the recipe's data for this model. Without eval_data a hold-out of `data` that shares no
/// sample with the calibration; without any data random inputs, if the model's inputs have known
/// shapes.
SampleSets open_samples(const Recipe& recipe, const Graph& graph);

inline constexpr int64_t kHoldOut = 500;  // samples: an agreement of 98 % is known to +-1.2 points
inline constexpr int64_t kRandomSamples = 16;  // that bits and cosine are checked on

/// Samples made up from the graph's input shapes; nullptr if these are not known.
std::shared_ptr<const Dataset> random_dataset(const Graph& graph, int64_t samples, uint64_t seed);

}  // namespace narrow
