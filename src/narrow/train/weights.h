// SPDX-License-Identifier: Apache-2.0
// What stands between a trained weight and the product that it enters, beside a uniform grid: block
// codecs, low-rank adapters; and what is rounded anew for each token.
#pragma once

#include <cstdint>

#include "narrow/core/tensor.h"

namespace narrow::train {

/// Rounded as narrow.DynamicQuantize does: blocks of `block` numbers along the last axis, scale =
/// largest magnitude / 127. Blocks begin anew every `width` numbers (a head); 0: at each row.
struct DynamicGrid {
  int64_t block = 32;
  int64_t width = 0;
};

/// A low-rank change of a weight (Hu et al., LoRA: Low-Rank Adaptation of Large Language Models,
/// 2021): w + scale * b a, the weight seen as [rows, columns], or as [columns, rows] where it is
/// `transposed`.
struct Adapter {
  Tensor a;  // [rank, columns]
  Tensor b;  // [rows, rank]
  float scale = 1;
  bool transposed = false;
  /// The sum is rounded to the weight's grid; else the adapter stays beside the rounded weight.
  bool merged = true;
};

}  // namespace narrow::train
