// SPDX-License-Identifier: Apache-2.0
// Steps that several passes share.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow {

/// Makes `to` stand wherever `from` stood, if names allow it: a graph input, a constant or another
/// output cannot take over the name of a graph output. Returns whether it did.
bool replace_value(Graph& graph, ValueId from, ValueId to);

/// Makes the new value `to` stand wherever `from` stood, with its type and shape.
void take_place(Graph& graph, ValueId from, ValueId to);

/// Removes the node if nothing uses any of its outputs.
void remove_if_unused(Graph& graph, NodeId id);

/// Every output but the first is absent or unused.
bool only_first_output_used(const Graph& graph, const Node& node);

/// Both shapes are known and equal; unnamed dimensions equal nothing.
bool same_known_shape(const Value& a, const Value& b);

/// The integers of a constant input, or nullopt.
std::optional<std::vector<int64_t>> constant_ints(const Graph& graph, const Node& node,
                                                  size_t index);

/// The input is a constant whose elements all equal `value`.
bool is_filled_with(const Graph& graph, ValueId input, float value);

/// All entries of an attribute are `value` (or it is absent).
bool all_ints(const Node& node, std::string_view attribute, int64_t value);

}  // namespace narrow
