// SPDX-License-Identifier: Apache-2.0
// train/weights.h with gradients, which pass through all rounding.
#pragma once

#include "narrow/quant/blocks/block_codec.h"
#include "narrow/train/engine/torch.h"
#include "narrow/train/weights.h"

namespace narrow::train {

/// Rows of x [.., columns] encoded and decoded (method rtn): the values that a file of these codes
/// has. Throws numeric_failure where x is not finite.
torch::Tensor round_to_blocks(const torch::Tensor& x, BlockType type);

torch::Tensor round_dynamically(const torch::Tensor& x, const DynamicGrid& grid);

/// An adapter that is trained.
struct LowRank {
  explicit LowRank(const Adapter& adapter);
  /// What is added to w.
  torch::Tensor change(const torch::Tensor& w) const;

  torch::Tensor a;
  torch::Tensor b;
  float scale = 1;
  bool transposed = false;
  bool merged = true;
};

}  // namespace narrow::train
