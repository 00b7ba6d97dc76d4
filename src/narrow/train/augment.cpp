// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/augment.h"

#include <algorithm>

#include "narrow/core/error.h"

namespace narrow::train {

Tensor augment(const Tensor& x, int64_t shift, bool flip, Rng& rng) {
  if (shift == 0 && !flip) return x;
  if (x.rank() != 4 || x.dtype() != DType::float32) {
    throw Error(ErrorCode::invalid_argument,
                x.describe() + " is no batch of images to shift or flip");
  }
  const int64_t height = x.dim(2);
  const int64_t width = x.dim(3);
  Tensor out(DType::float32, x.dims());
  const float* from = x.data<float>().data();
  float* to = out.mutable_data<float>().data();
  const auto move = [&] {
    return static_cast<int64_t>(rng.below(static_cast<uint64_t>(2 * shift + 1))) - shift;
  };
  for (int64_t sample = 0; sample < x.dim(0); ++sample) {
    const int64_t down = move();
    const int64_t right = move();
    const bool mirrored = flip && rng.below(2) == 1;
    for (int64_t row = 0; row < x.dim(1) * height; ++row) {
      const int64_t source_row = row % height - down;
      float* target = to + (sample * x.dim(1) * height + row) * width;
      if (source_row < 0 || source_row >= height) continue;
      const float* source = from + (sample * x.dim(1) * height + row - down) * width;
      const int64_t begin = std::max<int64_t>(0, right);
      const int64_t end = std::min(width, width + right);
      for (int64_t c = begin; c < end; ++c) target[c] = source[c - right];
      if (mirrored) std::reverse(target, target + width);
    }
  }
  return out;
}

}  // namespace narrow::train
