// SPDX-License-Identifier: Apache-2.0
// Images changed at random while training.
#pragma once

#include <cstdint>

#include "narrow/core/tensor.h"

namespace narrow::train {

struct Augmentation {
  int64_t crop = 0;   // a window smaller by up to so many pixels is stretched to the whole
  int64_t shift = 0;  // moves by up to so many pixels in each direction; what comes in is 0
  bool flip = false;  // every other image is mirrored left to right

  bool any() const { return crop > 0 || shift > 0 || flip; }
};

/// x [samples, channels, height, width] float32. Sample i draws from `seed` + i alone, so that
/// parts of a batch are changed as they are in the whole. Throws invalid_argument for other tensors
/// and for crops as large as the image.
Tensor augment(const Tensor& x, const Augmentation& how, uint64_t seed);

}  // namespace narrow::train
