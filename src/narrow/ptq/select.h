// SPDX-License-Identifier: Apache-2.0
// The analysis behind assign(): which nodes run on codes and which values therefore need a grid.
// Internal to ptq/.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "narrow/ptq/assign.h"
#include "narrow/ptq/op_class.h"
#include "narrow/ptq/targets.h"

namespace narrow {

/// What the options and rules say about one layer.
struct LayerChoice {
  std::optional<NumberType> weights;      // nullopt: float32
  std::optional<NumberType> activations;  // nullopt: float32
  Granularity granularity = Granularity::per_axis;
  int64_t group_size = 0;
  Symmetry weight_symmetry = Symmetry::symmetric;
};
LayerChoice choose(const QuantizeOptions& options, const std::string& node);

/// The scheme of activations of this type under these options.
Scheme activation_scheme(const QuantizeOptions& options, const NumberType& type);

struct Selection {
  std::map<NodeId, Layer> layers;                    // products that are quantized
  std::set<NodeId> nodes;                            // others that run on codes
  std::map<ValueId, std::vector<NumberType>> grids;  // values that need one, wishes of layers
  std::set<NodeId> absorbed;
  std::vector<KeptFloat> kept_float;
};

/// Throws invalid_argument for a pattern that matches no node.
Selection select_nodes(const Graph& graph, const QuantizeOptions& options);

/// The values with which each value shares its grid (itself included), as one list per group.
std::vector<std::vector<ValueId>> grid_groups(const Graph& graph, const Selection& selection,
                                              const TargetProfile& target);

}  // namespace narrow
