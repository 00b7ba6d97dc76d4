// SPDX-License-Identifier: Apache-2.0
// Measured means: of what layers read, and of what they give, by channel.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/data/dataset.h"
#include "narrow/graph/graph.h"
#include "narrow/ptq/assign.h"
#include "narrow/ptq/moments.h"

namespace narrow {

struct MomentOptions {
  int threads = 0;
  Progress progress;
};

/// Which dimension of a value counts as channels: 1, or the last (products).
enum class ChannelAxis : uint8_t { second, last };
/// As the nodes that read or make the value have it: last for those of products.
ChannelAxis channel_axis(const Graph& graph, const std::string& value);

/// Moments and extremes of values by channel; a value that does not appear is left out.
ValueMoments channel_moments(const Graph& graph, const std::map<std::string, ChannelAxis>& values,
                             const Dataset& data, const MomentOptions& options = {});

/// Means and mean squares of the inputs of the layers with quantized weights, over the data.
LayerMoments layer_moments(const Graph& graph, const Assignment& assignment, const Dataset& data,
                           const MomentOptions& options = {});

}  // namespace narrow
