// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/integer/conv_form.h"

#include <fmt/format.h>

#include "narrow/core/error.h"

namespace narrow::integer {

kernels::Extents three_axes(std::span<const int64_t> values, int64_t fill) {
  kernels::Extents e = {fill, fill, fill};
  for (size_t i = 0; i < values.size(); ++i) e[3 - values.size() + i] = values[i];
  return e;
}

std::string refuse_conv_form(const Tensor& w) {
  if (w.rank() < 3 || w.rank() > 5) return fmt::format("weights have rank {}", w.rank());
  if (w.elements() == 0) return "weights are empty";
  return {};
}

ConvForm::ConvForm(const Node& node, const Dims& w) : node_(node), w_(w) {
  const std::string mode = node.string_or("auto_pad", "NOTSET");
  same_padding_ = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  const ConvGeometry g = conv_geometry(node, Dims(w.size(), -1), w);
  fixed_.groups = g.group;
  fixed_.filters = w[0];
  fixed_.channels = w[1] * g.group;
  fixed_.kernel = three_axes(g.kernel, 1);
  fixed_.stride = three_axes(g.strides, 1);
  fixed_.dilation = three_axes(g.dilations, 1);
  fixed_.pad_begin = three_axes(g.pads_begin, 0);
  fixed_.pad_end = three_axes(g.pads_end, 0);
}

kernels::ConvProblem ConvForm::problem(const Dims& x, const Dims& y) const {
  if (x.size() != w_.size() || x[1] != fixed_.channels || y.size() != x.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("node '{}' ({}): input {} does not fit weights {}", node_.name,
                            node_.op, to_string(x), to_string(w_)));
  }
  kernels::ConvProblem p = fixed_;
  p.batch = x[0];
  const std::span<const int64_t> in(x);
  const std::span<const int64_t> out(y);
  p.in = three_axes(in.subspan(2), 1);
  p.out = three_axes(out.subspan(2), 1);
  if (same_padding_) {
    const ConvGeometry g = conv_geometry(node_, x, w_);
    p.pad_begin = three_axes(g.pads_begin, 0);
    p.pad_end = three_axes(g.pads_end, 0);
  }
  return p;
}

int64_t ConvForm::macs(std::span<const Dims> outputs) const {
  return num_elements(outputs[0]) * fixed_.group_channels() * fixed_.window();
}

}  // namespace narrow::integer
