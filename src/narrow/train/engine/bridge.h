// SPDX-License-Identifier: Apache-2.0
// Tensors of narrow and of libtorch. One of the few files that include libtorch.
#pragma once

#include "narrow/core/tensor.h"
#include "narrow/train/engine/torch.h"

namespace narrow::train {

/// A copy. float32, int64, int32, int8, uint8 and boolean; others become float32 or int64.
torch::Tensor to_torch(const Tensor& x);
/// A copy, contiguous; float32, int64, boolean.
Tensor from_torch(const torch::Tensor& x);

}  // namespace narrow::train
