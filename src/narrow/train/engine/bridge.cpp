// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/bridge.h"

#include <cstring>

#include "narrow/core/error.h"

namespace narrow::train {
namespace {

torch::Tensor copy_of(const void* data, size_t bytes, const Dims& dims, torch::Dtype dtype) {
  torch::Tensor out = torch::empty(std::vector<int64_t>(dims.begin(), dims.end()), dtype);
  if (bytes > 0) std::memcpy(out.data_ptr(), data, bytes);
  return out;
}

}  // namespace

torch::Tensor to_torch(const Tensor& x) {
  switch (x.dtype()) {
    case DType::float32:
      return copy_of(x.raw(), x.bytes(), x.dims(), torch::kFloat32);
    case DType::int64:
      return copy_of(x.raw(), x.bytes(), x.dims(), torch::kInt64);
    case DType::int32:
      return copy_of(x.raw(), x.bytes(), x.dims(), torch::kInt32);
    case DType::int8:
      return copy_of(x.raw(), x.bytes(), x.dims(), torch::kInt8);
    case DType::uint8:
      return copy_of(x.raw(), x.bytes(), x.dims(), torch::kUInt8);
    case DType::boolean:
      return copy_of(x.raw(), x.bytes(), x.dims(), torch::kBool);
    default:
      break;
  }
  if (is_float(x.dtype())) {
    const std::vector<float> values = x.to_floats();
    return copy_of(values.data(), values.size() * sizeof(float), x.dims(), torch::kFloat32);
  }
  const std::vector<int64_t> values = x.to_ints();
  return copy_of(values.data(), values.size() * sizeof(int64_t), x.dims(), torch::kInt64);
}

Tensor from_torch(const torch::Tensor& x) {
  const torch::Tensor c = x.detach().to(torch::kCPU).contiguous();
  DType dtype = DType::float32;
  if (c.scalar_type() == torch::kInt64) dtype = DType::int64;
  if (c.scalar_type() == torch::kBool) dtype = DType::boolean;
  if (dtype == DType::float32 && c.scalar_type() != torch::kFloat32) {
    throw Error(ErrorCode::internal, "a tensor of libtorch has an unexpected element type");
  }
  Tensor out(dtype, Dims(c.sizes().begin(), c.sizes().end()));
  if (out.bytes() > 0) std::memcpy(out.mutable_raw(), c.data_ptr(), out.bytes());
  return out;
}

}  // namespace narrow::train
