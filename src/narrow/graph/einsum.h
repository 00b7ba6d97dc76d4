// SPDX-License-Identifier: Apache-2.0
// Einsum's equation, with the ellipsis written out.
#pragma once

#include <span>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow {

/// One label for each dimension: letters as their characters, the dimensions of the ellipsis as
/// kEllipsis + distance from its right end, so that they broadcast like numpy's.
struct EinsumEquation {
  static constexpr int kEllipsis = 256;
  std::vector<std::vector<int>> inputs;
  std::vector<int> output;
};

/// Throws invalid_argument naming the node when the equation is malformed or does not fit the
/// ranks.
EinsumEquation parse_einsum(const Node& node, std::span<const size_t> ranks);

}  // namespace narrow
