// SPDX-License-Identifier: Apache-2.0
// Every implementation of this folder: float operators, data movement and shape arithmetic on all
// element types, and the reference forms of ONNX's own integer operators. Best row first for each
// operator.
#pragma once

#include <span>

#include "narrow/runtime/op_impl.h"

namespace narrow {

std::span<const OpImpl> float_op_impls();

}  // namespace narrow
