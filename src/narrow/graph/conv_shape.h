// SPDX-License-Identifier: Apache-2.0
// The geometry of convolutions and pooling windows: attributes of a node and the shapes of its
// inputs resolved into numbers that are safe to compute with. Used by shape inference, the lowering
// and the kernels, so that auto_pad, ceil_mode and output_shape mean one thing.
//
//   ConvGeometry g = conv_geometry(node, x.dims, w.dims);
//   for each output position o of axis i: input o * g.strides[i] - g.pads_begin[i] + k *
//   g.dilations[i]
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "narrow/core/shape.h"
#include "narrow/graph/graph.h"

namespace narrow {

/// One entry per spatial axis. Extents of at most 2^40, attributes of at most 2^31 - 1: products of
/// two never overflow.
struct ConvGeometry {
  Dims kernel;
  Dims strides;
  Dims dilations;
  Dims pads_begin;  // at least 0
  Dims pads_end;    // as declared, or as auto_pad gives; ceil_mode may reach further
  Dims output;      // spatial extents of the output; -1 where an input extent is unknown
  int64_t group = 1;

  size_t spatial_rank() const { return kernel.size(); }
  /// pads_begin then pads_end: the attribute `pads` that says the same without auto_pad.
  std::vector<int64_t> pads() const;
  /// Extent of the dilated kernel along axis i.
  int64_t reach(size_t i) const { return (kernel[i] - 1) * dilations[i] + 1; }
  /// Elements of one window (product of the kernel).
  int64_t window() const { return num_elements(kernel); }
};

/// The shapes are logical (N, C, spatial...), -1 for an extent that is not known (then auto_pad
/// leaves its pads at 0 and the output is -1). All throw invalid_argument naming the node: ranks
/// that do not fit, strides or dilations below 1, negative pads, a kernel larger than the padded
/// input, channels that group does not divide.

/// Conv, ConvInteger, QConv, WConv, DynamicQConv, QLinearConv: x [N, C, ...], w [M, C / group,
/// ...].
ConvGeometry conv_geometry(const Node& node, std::span<const int64_t> x,
                           std::span<const int64_t> w);

/// ConvTranspose: x [N, C, ...], w [C, M / group, ...]. Output position o gets input i and kernel k
/// where o = i * stride - pad_begin + k * dilation.
ConvGeometry conv_transpose_geometry(const Node& node, std::span<const int64_t> x,
                                     std::span<const int64_t> w);

/// MaxPool, AveragePool, LpPool, QAveragePool: x [N, C, ...], attributes kernel_shape, strides,
/// pads, dilations, ceil_mode, auto_pad.
ConvGeometry pool_geometry(const Node& node, std::span<const int64_t> x);

}  // namespace narrow
