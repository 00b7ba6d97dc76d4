// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/augment.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"

namespace narrow::train {
namespace {

struct Image {
  int64_t channels;
  int64_t height;
  int64_t width;
};

/// Bilinear, pixel centres at halves: `window` of `from` from (top, left) on fills `to`.
void stretch(const float* from, float* to, const Image& size, const Image& window, int64_t top,
             int64_t left) {
  const auto place = [](int64_t i, int64_t whole, int64_t part) {
    const float at =
        (static_cast<float>(i) + 0.5F) * static_cast<float>(part) / static_cast<float>(whole) -
        0.5F;
    return std::clamp(at, 0.0F, static_cast<float>(part - 1));
  };
  for (int64_t c = 0; c < size.channels; ++c) {
    const float* plane = from + c * size.height * size.width;
    for (int64_t row = 0; row < size.height; ++row) {
      const float y = place(row, size.height, window.height);
      const auto y0 = static_cast<int64_t>(y);
      const int64_t y1 = std::min(y0 + 1, window.height - 1);
      const float fy = y - static_cast<float>(y0);
      const float* above = plane + (top + y0) * size.width + left;
      const float* below = plane + (top + y1) * size.width + left;
      for (int64_t column = 0; column < size.width; ++column) {
        const float x = place(column, size.width, window.width);
        const auto x0 = static_cast<int64_t>(x);
        const int64_t x1 = std::min(x0 + 1, window.width - 1);
        const float fx = x - static_cast<float>(x0);
        const float a = above[x0] + fx * (above[x1] - above[x0]);
        const float b = below[x0] + fx * (below[x1] - below[x0]);
        *to++ = a + fy * (b - a);
      }
    }
  }
}

void move(const float* from, float* to, const Image& size, int64_t down, int64_t right) {
  for (int64_t row = 0; row < size.channels * size.height; ++row) {
    const int64_t source_row = row % size.height - down;
    if (source_row < 0 || source_row >= size.height) continue;
    const float* source = from + (row - down) * size.width;
    const int64_t begin = std::max<int64_t>(0, right);
    const int64_t end = std::min(size.width, size.width + right);
    for (int64_t c = begin; c < end; ++c) to[row * size.width + c] = source[c - right];
  }
}

int64_t up_to(int64_t most, Rng& rng) {
  return static_cast<int64_t>(rng.below(static_cast<uint64_t>(most + 1)));
}

}  // namespace

Tensor augment(const Tensor& x, const Augmentation& how, uint64_t seed) {
  if (!how.any()) return x;
  if (x.rank() != 4 || x.dtype() != DType::float32) {
    throw Error(ErrorCode::invalid_argument,
                x.describe() + " is no batch of images to crop, shift or flip");
  }
  const Image size{x.dim(1), x.dim(2), x.dim(3)};
  if (how.crop >= std::min(size.height, size.width)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a crop of {} leaves nothing of {}", how.crop, x.describe()));
  }
  Tensor out(DType::float32, x.dims());
  const int64_t pixels = size.channels * size.height * size.width;
  std::vector<float> window(static_cast<size_t>(how.crop > 0 ? pixels : 0));
  for (int64_t sample = 0; sample < x.dim(0); ++sample) {
    const float* from = x.data<float>().data() + sample * pixels;
    float* to = out.mutable_data<float>().data() + sample * pixels;
    Rng rng(seed + static_cast<uint64_t>(sample));
    if (how.crop > 0) {
      const int64_t less = up_to(how.crop, rng);
      const Image part{size.channels, size.height - less, size.width - less};
      const int64_t top = up_to(less, rng);
      stretch(from, window.data(), size, part, top, up_to(less, rng));
      from = window.data();
    }
    const int64_t down = up_to(2 * how.shift, rng) - how.shift;
    const int64_t right = up_to(2 * how.shift, rng) - how.shift;
    const bool mirrored = how.flip && rng.below(2) == 1;
    move(from, to, size, down, right);
    if (!mirrored) continue;
    for (int64_t row = 0; row < size.channels * size.height; ++row) {
      std::reverse(to + row * size.width, to + (row + 1) * size.width);
    }
  }
  return out;
}

}  // namespace narrow::train
