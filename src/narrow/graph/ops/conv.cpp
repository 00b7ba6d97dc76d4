// SPDX-License-Identifier: Apache-2.0
// Convolutions.
#include "narrow/graph/conv_shape.h"
#include "narrow/graph/ops/conv_infer.h"
#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {

void infer_conv(InferContext& c, size_t weight_input, size_t bias_input, DType output) {
  const SymbolicShape* x = c.shape(0);
  const SymbolicShape* w = c.shape(weight_input);
  if (!x || !w) {
    // One of the two is enough for the rank.
    const SymbolicShape* any = x ? x : w;
    c.set_output(0, output, any ? std::optional(unknown_shape(any->size())) : std::nullopt);
    return;
  }
  const ConvGeometry g = conv_geometry(c.node(), dims_or_unknown(*x), dims_or_unknown(*w));
  SymbolicShape y = {(*x)[0], (*w)[0]};
  for (size_t i = 0; i < g.output.size(); ++i) {
    // A stride of 1 with "same" padding keeps a symbolic extent.
    const bool kept = g.output[i] < 0 && keeps_extent(c.node(), g, i);
    y.push_back(kept ? (*x)[i + 2] : Dim(g.output[i]));
  }
  require_channel_vector(c, bias_input, (*w)[0], "bias");
  c.set_output(0, output, std::move(y));
}

bool keeps_extent(const Node& node, const ConvGeometry& g, size_t axis) {
  if (g.strides[axis] != 1 || g.kernel[axis] < 0) return false;
  const std::string mode = node.string_or("auto_pad", "NOTSET");
  if (mode == "SAME_UPPER" || mode == "SAME_LOWER") return true;
  return g.pads_begin[axis] + g.pads_end[axis] == g.reach(axis) - 1;
}

void require_channel_vector(const InferContext& c, size_t input, const Dim& channels,
                            std::string_view what) {
  if (!c.has_input(input)) return;
  require_rank(c, input, 1);
  if (const SymbolicShape* shape = c.shape(input)) unify(c, (*shape)[0], channels, what);
}

namespace {

void infer_float_conv(InferContext& c) {
  require_same_dtype(c, 0, 1);
  infer_conv(c, 1, 2, c.dtype(0));
}

void infer_conv_integer(InferContext& c) {
  require_integer(c, 0);
  require_integer(c, 1);
  infer_conv(c, 1, c.node().inputs.size(), DType::int32);
}

void infer_conv_transpose(InferContext& c) {
  require_same_dtype(c, 0, 1);
  const SymbolicShape* x = c.shape(0);
  const SymbolicShape* w = c.shape(1);
  if (!x || !w) {
    const SymbolicShape* any = x ? x : w;
    c.set_output(0, c.dtype(0), any ? std::optional(unknown_shape(any->size())) : std::nullopt);
    return;
  }
  const ConvGeometry g =
      conv_transpose_geometry(c.node(), dims_or_unknown(*x), dims_or_unknown(*w));
  const Dim channels = multiply(c, (*w)[1], g.group);
  require_channel_vector(c, 2, channels, "bias");
  SymbolicShape y = {(*x)[0], channels};
  for (const int64_t extent : g.output) y.emplace_back(extent);
  c.set_output(0, c.dtype(0), std::move(y));
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "Conv", 2, 3, 1, 1, 1, infer_float_conv},
    {"", "ConvTranspose", 2, 3, 1, 1, 1, infer_conv_transpose},
    {"", "ConvInteger", 2, 4, 1, 1, 10, infer_conv_integer},
};

}  // namespace

std::span<const OpInfo> conv_ops() {
  return kOps;
}

}  // namespace narrow::ops
