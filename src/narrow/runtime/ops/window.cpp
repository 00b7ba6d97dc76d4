// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/window.h"

#include <fmt/format.h>

#include "narrow/core/error.h"

namespace narrow::ops {
namespace {

Triple trailing(std::span<const int64_t> values, int64_t fill) {
  Triple t{fill, fill, fill};
  for (size_t i = 0; i < values.size(); ++i) t[3 - values.size() + i] = values[i];
  return t;
}

}  // namespace

Refusal refuse_spatial_rank(const Graph& graph, const Node& node, size_t input) {
  const ValueId id = node.input(input);
  if (id == kNoId || !graph.value(id).shape) return {};  // unknown here; checked when it runs
  const size_t rank = graph.value(id).shape->size();
  if (rank < 3 || rank > 5) return fmt::format("input {} has rank {}", input, rank);
  return {};
}

Window make_window(const ConvGeometry& g, std::span<const int64_t> x) {
  if (g.spatial_rank() > 3) {
    throw Error(ErrorCode::unsupported,
                fmt::format("windows of {} spatial axes; at most 3", g.spatial_rank()));
  }
  Window w;
  w.in = trailing(x.subspan(2), 1);
  w.out = trailing(g.output, 1);
  w.kernel = trailing(g.kernel, 1);
  w.stride = trailing(g.strides, 1);
  w.dilation = trailing(g.dilations, 1);
  w.pad_begin = trailing(g.pads_begin, 0);
  w.pad_end = trailing(g.pads_end, 0);
  return w;
}

ImageView image_view(const TensorView& view) {
  const Dims strides = memory_strides(view);
  const std::span<const int64_t> dims(view.dims);
  const std::span<const int64_t> s(strides);
  ImageView image;
  image.batch = dims[0];
  image.channels = dims[1];
  image.batch_stride = s[0];
  image.channel_stride = s[1];
  image.extent = trailing(dims.subspan(2), 1);
  image.stride = trailing(s.subspan(2), 0);
  return image;
}

}  // namespace narrow::ops
