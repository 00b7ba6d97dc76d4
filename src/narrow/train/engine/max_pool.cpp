// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/max_pool.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <vector>

#include "narrow/core/clones.h"

namespace narrow::train {
namespace {

/// Outputs [first, last) of a row whose window position lies inside of the input.
struct Span {
  int64_t first;
  int64_t last;
};
Span inside(int64_t offset, int64_t stride, int64_t input, int64_t output) {
  // 0 <= o * stride + offset < input
  const int64_t first = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
  const int64_t last = input <= offset ? 0 : (input - offset - 1) / stride + 1;
  return {first, std::min(last, output)};
}

/// What has been found so far in a window.
struct Largest {
  float value;
  int32_t position;
};

/// Without a branch, which values that nobody can foresee would make slow.
inline Largest larger_of(const Largest& a, float v, int32_t position) {
  const uint32_t larger = 0U - (static_cast<uint32_t>(v > a.value) | static_cast<uint32_t>(v != v));
  const auto mask = static_cast<int32_t>(larger);
  return {std::bit_cast<float>((std::bit_cast<uint32_t>(v) & larger) |
                               (std::bit_cast<uint32_t>(a.value) & ~larger)),
          (position & mask) | (a.position & ~mask)};
}

/// One position of the windows of a row of outputs. Stride 0: the one given; a known one makes
/// vectors.
template <int64_t Stride>
NARROW_CLONES void take_larger(int64_t count, const float* __restrict x, int64_t stride,
                               int32_t position, float* __restrict best,
                               int32_t* __restrict where) {
  const int64_t step = Stride == 0 ? stride : Stride;
  for (int64_t o = 0; o < count; ++o) {
    const Largest now = larger_of({best[o], where[o]}, x[o * step], position);
    best[o] = now.value;
    where[o] = now.position;
  }
}

/// The larger of each pair of neighbours.
NARROW_CLONES void pool_neighbours(int64_t pairs, const float* __restrict x, float* __restrict y,
                                   int32_t* __restrict where) {
  for (int64_t o = 0; o < pairs; ++o) {
    const Largest first = {x[2 * o], 0};
    const Largest now = larger_of(first, x[2 * o + 1], 1);
    y[o] = now.value;
    where[o] = now.position;
  }
}

/// The larger of two rows of such pairs.
NARROW_CLONES void pool_rows(int64_t count, const float* __restrict x,
                             const int32_t* __restrict from, float* __restrict y,
                             int32_t* __restrict where) {
  for (int64_t o = 0; o < count; ++o) {
    const Largest first = {x[o], from[o]};
    const Largest now = larger_of(first, x[count + o], 2 + from[count + o]);
    y[o] = now.value;
    where[o] = now.position;
  }
}

/// Windows of 2x2 in steps of 2 that fill the plane, which most networks have.
bool is_pairs(const PoolShape& s) {
  for (int i = 0; i < 2; ++i) {
    if (s.kernel[i] != 2 || s.strides[i] != 2 || s.dilations[i] != 1 || s.pads[i] != 0)
      return false;
    if (2 * s.output[i] != s.input[i]) return false;
  }
  return true;
}

void take(int64_t count, const float* x, int64_t stride, int32_t position, float* best,
          int32_t* where) {
  switch (stride) {
    case 1:
      return take_larger<1>(count, x, stride, position, best, where);
    case 2:
      return take_larger<2>(count, x, stride, position, best, where);
    default:
      return take_larger<0>(count, x, stride, position, best, where);
  }
}

/// Pairs side by side first, in one long loop for the plane: rows are often shorter than vectors.
void pool_pairs(const PoolShape& s, const float* x, float* y, int32_t* positions) {
  const int64_t width = s.output[1];
  const int64_t pairs = s.input[0] * width;
  std::vector<float> larger(static_cast<size_t>(pairs));
  std::vector<int32_t> from(static_cast<size_t>(pairs));
  pool_neighbours(pairs, x, larger.data(), from.data());
  for (int64_t row = 0; row < s.output[0]; ++row) {
    const int64_t at = 2 * row * width;
    pool_rows(width, larger.data() + at, from.data() + at, y + row * width,
              positions + row * width);
  }
}

void pool_row(const PoolShape& s, int64_t row, const float* x, float* best, int32_t* positions) {
  std::fill_n(best, s.output[1], -std::numeric_limits<float>::infinity());
  std::fill_n(positions, s.output[1], kNowhere);
  for (int64_t i = 0; i < s.kernel[0]; ++i) {
    const int64_t from = row * s.strides[0] - s.pads[0] + i * s.dilations[0];
    if (from < 0 || from >= s.input[0]) continue;
    for (int64_t j = 0; j < s.kernel[1]; ++j) {
      const int64_t offset = j * s.dilations[1] - s.pads[1];
      const Span span = inside(offset, s.strides[1], s.input[1], s.output[1]);
      if (span.first >= span.last) continue;
      take(span.last - span.first, x + from * s.input[1] + span.first * s.strides[1] + offset,
           s.strides[1], static_cast<int32_t>(i * s.kernel[1] + j), best + span.first,
           positions + span.first);
    }
  }
}

NARROW_CLONES void narrow_positions(int64_t count, const int32_t* __restrict from,
                                    uint8_t* __restrict to) {
  for (int64_t o = 0; o < count; ++o) to[o] = static_cast<uint8_t>(from[o]);
}

}  // namespace

void max_pool(const PoolShape& s, const float* x, float* y, uint8_t* where) {
  std::vector<int32_t> positions(static_cast<size_t>(s.output[0] * s.output[1]));
  if (is_pairs(s)) {
    pool_pairs(s, x, y, positions.data());
  } else {
    for (int64_t row = 0; row < s.output[0]; ++row) {
      pool_row(s, row, x, y + row * s.output[1], positions.data() + row * s.output[1]);
    }
  }
  narrow_positions(s.output[0] * s.output[1], positions.data(), where);
}

void max_pool_gradient(const PoolShape& s, const uint8_t* where, const float* g, float* dx) {
  std::vector<int64_t> offsets(kNowhere + 1, 0);
  for (int64_t p = 0; p < s.kernel[0] * s.kernel[1]; ++p) {
    offsets[static_cast<size_t>(p)] =
        p / s.kernel[1] * s.dilations[0] * s.input[1] + p % s.kernel[1] * s.dilations[1];
  }
  for (int64_t row = 0; row < s.output[0]; ++row) {
    for (int64_t column = 0; column < s.output[1]; ++column) {
      const int64_t at = row * s.output[1] + column;
      if (where[at] == kNowhere) continue;
      const int64_t corner =
          (row * s.strides[0] - s.pads[0]) * s.input[1] + column * s.strides[1] - s.pads[1];
      dx[corner + offsets[where[at]]] += g[at];
    }
  }
}

}  // namespace narrow::train
