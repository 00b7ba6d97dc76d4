// SPDX-License-Identifier: Apache-2.0
// Shape inference into the bodies of If, Loop and Scan.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "narrow/graph/op_table.h"

namespace narrow::ops {

/// What a control operator knows of one input of its body.
struct BodyInput {
  DType dtype = DType::undefined;
  std::optional<SymbolicShape> shape;
  Tensor constant;  // undefined where the value is not known
};

/// Sets the body's inputs and infers everything in it anew. Fails when the count differs or the
/// nesting of `c` is too deep.
void infer_body(InferContext& c, Graph& body, std::span<const BodyInput> inputs);

}  // namespace narrow::ops
