// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "narrow/graph/pass.h"

namespace narrow {

/// Returns the number of nodes fused. Needs inferred shapes.
int64_t fuse_activations(Graph& graph, const PassContext& context);

}  // namespace narrow
