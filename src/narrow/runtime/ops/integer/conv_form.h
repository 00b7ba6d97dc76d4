// SPDX-License-Identifier: Apache-2.0
// A convolution's attributes, read once; with the shapes of a run they give the kernels' problem.
#pragma once

#include "narrow/graph/conv_shape.h"
#include "narrow/kernels/conv.h"

namespace narrow::integer {

/// Values behind each other at the end of {fill, fill, fill}: one to three spatial axes as three.
kernels::Extents three_axes(std::span<const int64_t> values, int64_t fill);

class ConvForm {
 public:
  /// w: [filters, channels / group, kernel], 1 to 3 spatial axes.
  ConvForm(const Node& node, const Dims& w);
  /// Throws invalid_argument where x does not fit the weights.
  kernels::ConvProblem problem(const Dims& x, const Dims& y) const;
  /// What does not depend on a run: channels, groups, kernel (for packing).
  const kernels::ConvProblem& fixed() const { return fixed_; }
  int64_t macs(std::span<const Dims> outputs) const;

 private:
  Node node_;
  Dims w_;
  bool same_padding_;  // auto_pad: pads depend on the input
  kernels::ConvProblem fixed_;
};

/// Why a convolution has no such form; empty if it has. `w` is constant.
std::string refuse_conv_form(const Tensor& w);

}  // namespace narrow::integer
