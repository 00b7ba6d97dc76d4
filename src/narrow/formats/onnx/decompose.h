// SPDX-License-Identifier: Apache-2.0
// Operators of newer opsets as several of older ones, for files that are asked to be older than
// their graph: where one node cannot be edited into an older form (downgrade.h).
#pragma once

#include <cstdint>

#include "narrow/graph/graph.h"

namespace narrow::onnx {

/// Rewrites the nodes that `opset` lacks and that have such a form; the others stay. Needs inferred
/// shapes; returns how many were rewritten.
int64_t decompose(Graph& graph, int64_t opset);

}  // namespace narrow::onnx
