// SPDX-License-Identifier: Apache-2.0
// Pooling.
#include "narrow/graph/conv_shape.h"
#include "narrow/graph/ops/conv_infer.h"
#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {

void infer_pool(InferContext& c, DType output) {
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, output, std::nullopt);
  const ConvGeometry g = pool_geometry(c.node(), dims_or_unknown(*x));
  SymbolicShape y = {(*x)[0], (*x)[1]};
  for (size_t i = 0; i < g.output.size(); ++i) {
    const bool kept = g.output[i] < 0 && keeps_extent(c.node(), g, i);
    y.push_back(kept ? (*x)[i + 2] : Dim(g.output[i]));
  }
  c.set_output(0, output, std::move(y));
}

void infer_global_pool(InferContext& c, DType output, bool channels_last) {
  require_min_rank(c, 0, 2);
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, output, std::nullopt);
  SymbolicShape y = *x;
  const size_t first = channels_last ? 1 : 2;
  const size_t last = channels_last ? y.size() - 1 : y.size();
  for (size_t i = first; i < last; ++i) y[i] = 1;
  c.set_output(0, output, std::move(y));
}

namespace {

void infer_one_pool(InferContext& c) {
  infer_pool(c, c.dtype(0));
}

/// The second output holds indices.
void infer_max_pool(InferContext& c) {
  infer_pool(c, c.dtype(0));
  c.set_output(1, DType::int64, c.outputs()[0].shape);
}

void infer_whole_pool(InferContext& c) {
  infer_global_pool(c, c.dtype(0));
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "MaxPool", 1, 1, 1, 2, 8, infer_max_pool},
    {"", "AveragePool", 1, 1, 1, 1, 7, infer_one_pool},
    {"", "LpPool", 1, 1, 1, 1, 2, infer_one_pool},
    {"", "GlobalAveragePool", 1, 1, 1, 1, 1, infer_whole_pool},
    {"", "GlobalMaxPool", 1, 1, 1, 1, 1, infer_whole_pool},
    {"", "GlobalLpPool", 1, 1, 1, 1, 2, infer_whole_pool},
};

}  // namespace

std::span<const OpInfo> pool_ops() {
  return kOps;
}

}  // namespace narrow::ops
