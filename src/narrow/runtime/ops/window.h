// SPDX-License-Identifier: Apache-2.0
// Convolution and pooling windows of one, two or three spatial axes as exactly three (leading axes
// of extent 1), and operands as strides: one loop serves all ranks and memory orders.
#pragma once

#include <array>
#include <cstdint>

#include "narrow/graph/conv_shape.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {

using Triple = std::array<int64_t, 3>;

/// Why a value of this rank has no window form; empty for ranks 3 to 5.
Refusal refuse_spatial_rank(const Graph& graph, const Node& node, size_t input);

struct Window {
  Triple in;
  Triple out;
  Triple kernel;
  Triple stride;
  Triple dilation;
  Triple pad_begin;
  Triple pad_end;
  /// First and one past the last kernel index that lies inside the input for output position o.
  void clip(size_t axis, int64_t o, int64_t& first, int64_t& last) const {
    const int64_t origin = o * stride[axis] - pad_begin[axis];
    const int64_t d = dilation[axis];
    first = origin < 0 ? (-origin + d - 1) / d : 0;
    last = in[axis] <= origin ? 0 : (in[axis] - origin + d - 1) / d;
    if (last > kernel[axis]) last = kernel[axis];
  }
};
Window make_window(const ConvGeometry& geometry, std::span<const int64_t> x);

/// Strides in elements of a value [N, C, spatial...].
struct ImageView {
  int64_t batch;
  int64_t channels;
  Triple extent;
  int64_t batch_stride;
  int64_t channel_stride;
  Triple stride;
};
ImageView image_view(const TensorView& view);

}  // namespace narrow::ops
