// SPDX-License-Identifier: Apache-2.0
// From the graph as read to the graph as executed: float clean-up, then integer lowering, in
// subgraphs too. Internal to the runtime.
#pragma once

#include "narrow/graph/graph.h"
#include "narrow/graph/qdq.h"
#include "narrow/runtime/session.h"

namespace narrow {

/// Observed values survive with their names. Throws unsupported listing every unknown operator, and
/// not_found for an observed value that is nowhere.
LoweringReport prepare(Graph& graph, const SessionOptions& options);

}  // namespace narrow
