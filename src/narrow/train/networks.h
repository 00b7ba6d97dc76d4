// SPDX-License-Identifier: Apache-2.0
// Networks to train from scratch, as graphs with random weights.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "narrow/graph/graph.h"

namespace narrow::train {

struct Network {
  const char* name;
  const char* summary;
  Graph (*make)(uint64_t seed);
};
std::span<const Network> networks();

/// Weights by He et al., Delving Deep into Rectifiers (2015); the same for the same seed. Throws
/// invalid_argument for a name that is not known.
Graph make_network(std::string_view name, uint64_t seed);

/// Dropout is for training: what is deployed hands everything on.
void turn_off_dropout(Graph& graph);

}  // namespace narrow::train
