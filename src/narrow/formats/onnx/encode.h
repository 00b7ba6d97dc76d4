// SPDX-License-Identifier: Apache-2.0
// The messages of proto.h as bytes.
#pragma once

#include <functional>

#include "narrow/formats/onnx/proto.h"
#include "narrow/formats/onnx/wire.h"

namespace narrow::onnx {

/// Where a tensor's bytes lie in the data file; nullopt for tensors that stay in the model.
struct ExternalPlace {
  std::string location;
  uint64_t offset = 0;
};
using PlaceTensor = std::function<std::optional<ExternalPlace>(const Tensor&)>;

WireWriter encode_tensor(const std::string& name, const Tensor& tensor, const PlaceTensor& place);
WireWriter encode_model(const ProtoModel& model, const PlaceTensor& place);

}  // namespace narrow::onnx
