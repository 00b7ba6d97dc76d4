// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/onnx_types.h"

#include <utility>

namespace narrow {
namespace {

// onnx.proto, enum TensorProto.DataType.
constexpr std::pair<int64_t, DType> kTypes[] = {
    {1, DType::float32}, {2, DType::uint8},     {3, DType::int8},     {4, DType::uint16},
    {5, DType::int16},   {6, DType::int32},     {7, DType::int64},    {8, DType::string},
    {9, DType::boolean}, {10, DType::float16},  {11, DType::float64}, {12, DType::uint32},
    {13, DType::uint64}, {16, DType::bfloat16}, {21, DType::uint4},   {22, DType::int4},
    {25, DType::uint2},  {26, DType::int2},
};

}  // namespace

DType dtype_from_onnx(int64_t number) {
  for (const auto& [n, dtype] : kTypes) {
    if (n == number) return dtype;
  }
  return DType::undefined;
}

int64_t dtype_to_onnx(DType dtype) {
  for (const auto& [n, d] : kTypes) {
    if (d == dtype) return n;
  }
  return 0;
}

}  // namespace narrow
