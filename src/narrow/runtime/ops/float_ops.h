// SPDX-License-Identifier: Apache-2.0
// Every implementation of this folder: float operators, data movement and shape arithmetic on all
// element types, and the reference forms of ONNX's own integer operators. Best row first for each
// operator.
//
// Steps whose shape comes from an input (Reshape, Slice, Expand, Resize, Range, ...) work with a
// planned output, and also without one: where the plan could not know the shape (data == nullptr)
// they call allocate_output() themselves.
#pragma once

#include <span>

#include "narrow/runtime/op_impl.h"

namespace narrow {

std::span<const OpImpl> float_op_impls();

}  // namespace narrow
