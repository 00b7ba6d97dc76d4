// SPDX-License-Identifier: Apache-2.0
// Cross-layer equalization: where one layer's output is read by layers alone, directly or through
// Relu, its channels can be scaled down in the first layer and up in the others without changing
// the function. Channels of small range then use more of the one grid that all of them share.
//
// For each such value the scales are a_i^p / w_i^(1-p) (a: range of the channel, w: its largest
// weight in the readers), p in {0, 1/4, 1/2, 3/4, 1}; the p with the least predicted noise at the
// readers' outputs (activation rounding plus weight rounding) is taken, or none.
#pragma once

#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/ptq/assign.h"
#include "narrow/ptq/moments.h"

namespace narrow {

struct EqualizedValue {
  std::string value;
  double power = 0;         // p
  double noise_before = 0;  // predicted, of the readers' outputs
  double noise_after = 0;
};

/// Values whose channels equalize() may scale.
std::vector<std::string> equalizable_values(const Graph& graph, const Assignment& assignment);

/// Changes weights and biases of `graph`, for which `assignment` was made. Only static layers with
/// per_axis weights take part.
std::vector<EqualizedValue> equalize(Graph& graph, const Assignment& assignment,
                                     const ValueMoments& moments);

}  // namespace narrow
