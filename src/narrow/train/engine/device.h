// SPDX-License-Identifier: Apache-2.0
// Where a network is computed. Parameters, grids and the optimizer stay in the memory of the CPU
// whatever computes; each step moves the rounded weights over and the gradients back, which keeps
// the memory of the other device for activations.
#pragma once

#include <string>

#include "narrow/train/engine/torch.h"

namespace narrow::train {

/// "cpu", "cuda" (of several: the one of LOCAL_RANK, as torchrun sets it) or "cuda:N". Makes a GPU
/// compute products in float32 and convolutions the same way each time. Throws unsupported where
/// this libtorch or this machine has no such device.
torch::Device open_device(const std::string& name);

/// `x` where `like` is; gradients come back. Undefined stays undefined.
inline torch::Tensor beside(const torch::Tensor& x, const torch::Tensor& like) {
  return x.defined() && x.device() != like.device() ? x.to(like.device()) : x;
}

}  // namespace narrow::train
