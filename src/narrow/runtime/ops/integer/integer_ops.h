// SPDX-License-Identifier: Apache-2.0
// Implementations of the operators of the domain "narrow" (graph/lowered_ops.h) and of ONNX
// operators on 8-bit codes, on the kernels of kernels/.
#pragma once

#include <span>

#include "narrow/runtime/op_impl.h"

namespace narrow {

/// All rows, best first for each operator; the reference is the last.
std::span<const OpImpl> integer_op_impls();

}  // namespace narrow
