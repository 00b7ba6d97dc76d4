// SPDX-License-Identifier: Apache-2.0
// What is known of a value's channels: moments and extremes. They weigh weights in rounding, give
// the shift that rounding causes in the mean output, and show channels of unequal range.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace narrow {

/// By channel (convolutions: dimension 1; products: the last one). Equally many of each.
struct ChannelMoments {
  std::vector<double> mean;
  std::vector<double> mean_square;
  std::vector<float> low;   // at most 0
  std::vector<float> high;  // at least 0
};

/// Of what a layer reads, by name of its node. A layer may be missing: then its weights count
/// alike.
using LayerMoments = std::map<std::string, ChannelMoments>;

/// By name of the value.
using ValueMoments = std::map<std::string, ChannelMoments>;

}  // namespace narrow
