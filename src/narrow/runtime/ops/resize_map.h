// SPDX-License-Identifier: Apache-2.0
// Resize, one axis at a time: which input positions make an output position, with what weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/runtime/op_impl.h"

namespace narrow::ops {

enum class ResizeMode : uint8_t { nearest, linear, cubic };
enum class Coordinates : uint8_t {
  half_pixel,
  half_pixel_symmetric,
  pytorch_half_pixel,
  align_corners,
  asymmetric,
  tf_crop_and_resize,
};
enum class Nearest : uint8_t { round_prefer_floor, round_prefer_ceil, floor, ceil };

/// The attributes of a Resize node. Throws invalid_argument for names that are none of the above.
struct ResizeForm {
  ResizeMode mode;
  Coordinates coordinates;
  Nearest nearest;
  float cubic_a;
  bool exclude_outside;
  bool antialias;
  float extrapolation;
  std::string policy;  // stretch, not_larger, not_smaller
  std::vector<int64_t> axes;
  explicit ResizeForm(const Node& node);
};

/// Where one axis is taken from: its scale, its part of the input, its new extent.
struct AxisResize {
  int64_t in = 1;
  int64_t out = 1;
  float scale = 1;
  float start = 0;  // tf_crop_and_resize: relative to the extent
  float end = 1;
};

/// One AxisResize per axis of the data, from the node's run-time inputs (x, roi, scales, sizes).
std::vector<AxisResize> resize_axes(const ResizeForm& form, std::span<const TensorView> inputs);

/// Output position o is the sum over t of weight[o * taps + t] * input[index[o * taps + t]].
struct AxisMap {
  int64_t in = 1;
  int64_t out = 1;
  int64_t taps = 1;
  std::vector<int64_t> index;
  std::vector<float> weight;
  std::vector<int64_t> outside;  // output positions that take the extrapolation value
  bool is_identity() const;
};
AxisMap make_axis_map(const ResizeForm& form, const AxisResize& axis);

}  // namespace narrow::ops
