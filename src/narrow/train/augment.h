// SPDX-License-Identifier: Apache-2.0
// Images changed at random while training.
#pragma once

#include "narrow/core/rng.h"
#include "narrow/core/tensor.h"

namespace narrow::train {

/// x [samples, channels, height, width] float32: each sample moves by up to `shift` pixels in each
/// direction (what comes in is 0) and, with `flip`, is mirrored left to right every other time.
/// Throws invalid_argument for other tensors.
Tensor augment(const Tensor& x, int64_t shift, bool flip, Rng& rng);

}  // namespace narrow::train
