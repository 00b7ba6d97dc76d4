// SPDX-License-Identifier: Apache-2.0
// TensorProto: element types, the many places where its data may lie, external files.
#pragma once

#include "narrow/formats/onnx/proto.h"
#include "narrow/formats/onnx/wire.h"

namespace narrow::onnx {

/// Numbers of TensorProto.DataType.
std::optional<DType> dtype_of(int64_t data_type);
int data_type_of(DType dtype);
/// The name of a data type that ONNX has and narrow has not ("float8e4m3fn"), or nullptr.
const char* foreign_data_type(int64_t data_type);

/// Tensors point into the file where it is aligned for their elements, otherwise they are copied.
ProtoTensor parse_tensor(WireReader message, Source& source);

}  // namespace narrow::onnx
