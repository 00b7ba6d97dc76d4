// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/passes/passes.h"

namespace narrow {

int64_t eliminate_dead(Graph& graph, const PassContext&) {
  return graph.remove_dead();
}

}  // namespace narrow
