// SPDX-License-Identifier: Apache-2.0
// A complete graph pass to copy from. To make it one of the library's passes:
//
//   1. copy the .cpp to src/narrow/graph/passes/<name>.cpp and declare the function in
//      src/narrow/graph/passes/passes.h;
//   2. add a row {name, summary, function} to the table in src/narrow/graph/pass.cpp, where it
//      should run;
//   3. copy the test to tests/graph/passes/<name>_test.cpp.
//
// Nothing else needs to change: switching off, timing and verification follow the table.
#pragma once

#include <cstdint>

#include "narrow/graph/pass.h"

namespace narrow {

/// Relu -> Clip(min, max) becomes one Clip with min not below 0. Returns the number of Relus that
/// went.
int64_t merge_relu_into_clip(Graph& graph, const PassContext& context);

}  // namespace narrow
