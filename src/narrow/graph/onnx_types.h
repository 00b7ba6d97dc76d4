// SPDX-License-Identifier: Apache-2.0
// ONNX's numbers of element types (TensorProto.DataType), as attributes such as Cast's `to` hold
// them.
#pragma once

#include <cstdint>

#include "narrow/core/dtype.h"

namespace narrow {

/// undefined for a number that has no DType here (complex, float8, ...).
DType dtype_from_onnx(int64_t number);
/// 0 for undefined.
int64_t dtype_to_onnx(DType dtype);

}  // namespace narrow
