// SPDX-License-Identifier: Apache-2.0
// Internal to the runtime: how states are declared, made and handed to a program.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/runtime/plan.h"
#include "narrow/runtime/state.h"

namespace narrow {

struct State::Impl {
  uint64_t session = 0;  // number of the one that made it
  std::vector<std::string> names;
  std::vector<Tensor> tensors;  // in the order of the declared pairs
  std::atomic<bool> busy = false;
};

/// Positions of the declared pairs among the graph's inputs and outputs. Throws not_found for a
/// name, invalid_argument where one stands in two pairs.
std::vector<StatePosition> find_states(const Graph& graph, const std::vector<StatePair>& pairs);

/// Throws invalid_argument naming both ends of a pair whose types or known dimensions differ.
/// Needs a graph with shapes inferred.
void check_states(const Graph& graph, const std::vector<StatePosition>& states);

/// The dims of a state from its declared shape, with `sizes` for named dimensions. Throws
/// invalid_argument for a dimension that is neither known nor named there.
Dims state_dims(const Value& input, const std::map<std::string, int64_t>& sizes);

}  // namespace narrow
