// SPDX-License-Identifier: Apache-2.0
// The largest value of windows of planes, with the gradient. libtorch's own decides value by value
// with branches and keeps eight bytes of index for each; this one keeps one byte.
#pragma once

#include <cstdint>

namespace narrow::train {

/// Of one plane; positions as in graph/conv_shape.h, index 0 rows, 1 columns.
struct PoolShape {
  int64_t input[2];
  int64_t output[2];
  int64_t kernel[2];
  int64_t strides[2];
  int64_t dilations[2];
  int64_t pads[2];
};

/// Positions of a window that a byte can tell apart; the one above is kNowhere.
inline constexpr int64_t kMostPositions = 255;
inline constexpr uint8_t kNowhere = 255;

/// y and `where`: the first position of the largest value in its window
/// (row * kernel[1] + column), where all are -infinity any or kNowhere. NaN counts as the largest.
void max_pool(const PoolShape& shape, const float* x, float* y, uint8_t* where);

/// Adds each gradient to where its value came from; dx is zero before.
void max_pool_gradient(const PoolShape& shape, const uint8_t* where, const float* g, float* dx);

}  // namespace narrow::train
