// SPDX-License-Identifier: Apache-2.0
// First and second moments of what a layer multiplies its weights with, by input channel. They
// weigh the weights in rounding and give the shift that rounding causes in the mean output.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace narrow {

struct InputMoments {
  std::vector<double> mean;         // by input channel (Conv: dimension 1; products: the last one)
  std::vector<double> mean_square;  // likewise
};

/// By name of the layer's node. A layer may be missing: then its weights count alike.
using LayerMoments = std::map<std::string, InputMoments>;

}  // namespace narrow
