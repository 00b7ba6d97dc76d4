// SPDX-License-Identifier: Apache-2.0
// Ranks over libtorch's c10d with Gloo.
#pragma once

#include <memory>

#include "narrow/train/engine/torch.h"
#include "narrow/train/ranks.h"

namespace narrow::train {

/// Waits for the others. Throws io_error where they do not come, unsupported where libtorch was
/// built without Gloo.
std::unique_ptr<Ranks> join_ranks(const RankPlace& place);

/// The sum over ranks, with gradients: that of each rank is the sum of all.
torch::Tensor sum_over_ranks(const torch::Tensor& x, Ranks& ranks);

}  // namespace narrow::train
