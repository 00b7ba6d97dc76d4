// SPDX-License-Identifier: Apache-2.0
// A complete operator implementation to copy: example.SquaredDifference, y = (a - b)^2 with numpy
// broadcasting. To make one of your own:
//
//   1. shape inference: a row in a table of src/narrow/graph/ops/ (name, arity, opset, function);
//   2. this file's counterpart in src/narrow/runtime/ops/: a Step per implementation, a static
//   table
//      of rows, best first and "reference" last, and a function that returns the table;
//   3. that function declared in runtime/ops/rows.h and listed in runtime/ops/float_ops.cpp;
//   4. golden cases in tests/goldens/make_ops.py. tests/runtime/ops_golden_test.cpp then runs every
//      row on them, in both memory orders, in place and in 16-bit floats, and fails for a row that
//      no case reaches.
#pragma once

#include <span>

#include "narrow/runtime/op_impl.h"

namespace narrow::examples {

std::span<const OpImpl> squared_difference_rows();

}  // namespace narrow::examples
