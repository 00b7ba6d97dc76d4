// SPDX-License-Identifier: Apache-2.0
// Normalization layers and the softmax family.
#include <fmt/format.h>

#include "narrow/graph/ops/conv_infer.h"
#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

/// Inference form: one output.
void infer_batch_norm(InferContext& c) {
  if (c.node().int_or("training_mode", 0) != 0) {
    c.fail("training_mode is set; export the model for inference");
  }
  require_min_rank(c, 0, 1);
  infer_same(c);
  const SymbolicShape* x = c.shape(0);
  if (!x) return;
  const Dim channels = x->size() > 1 ? (*x)[1] : Dim(1);
  for (size_t i = 1; i < 5; ++i) {
    require_channel_vector(c, i, channels, "the parameters of batch normalization");
  }
}

void infer_channel_norm(InferContext& c) {
  require_min_rank(c, 0, 2);
  infer_same(c);
  if (const SymbolicShape* x = c.shape(0)) {
    require_channel_vector(c, 1, (*x)[1], "scale");
    require_channel_vector(c, 2, (*x)[1], "bias");
  }
}

void infer_group_norm(InferContext& c) {
  infer_channel_norm(c);
  const int64_t groups = c.node().int_or("num_groups", 0);
  const SymbolicShape* x = c.shape(0);
  divide(c, x ? (*x)[1] : Dim(), groups, "num_groups");
}

/// Outputs Mean and InvStdDev keep the normalized axes as 1.
void infer_layer_norm(InferContext& c) {
  require_min_rank(c, 0, 1);
  infer_same(c);
  const DType stash = dtype_attribute(c, "stash_type", DType::float32);
  const SymbolicShape* x = c.shape(0);
  if (!x) {
    c.set_output(1, stash, std::nullopt);
    c.set_output(2, stash, std::nullopt);
    return;
  }
  const size_t axis = axis_attribute(c, -1, x->size());
  for (size_t i = 1; i < 3; ++i) {
    if (c.shape(i)) broadcast(c, SymbolicShape(x->begin(), x->end()), *c.shape(i));
  }
  SymbolicShape reduced = *x;
  for (size_t i = axis; i < reduced.size(); ++i) reduced[i] = 1;
  c.set_output(1, stash, reduced);
  c.set_output(2, stash, reduced);
}

void infer_rms_norm(InferContext& c) {
  require_min_rank(c, 0, 1);
  infer_same(c);
  if (const SymbolicShape* x = c.shape(0)) {
    axis_attribute(c, -1, x->size());
    if (c.shape(1)) broadcast(c, *x, *c.shape(1));
  }
}

/// Attribute axis, default the last.
void infer_along_axis(InferContext& c) {
  require_min_rank(c, 0, 1);
  infer_same(c);
  if (const SymbolicShape* x = c.shape(0)) axis_attribute(c, -1, x->size());
}

void infer_lrn(InferContext& c) {
  require_min_rank(c, 0, 2);
  if (c.node().int_or("size", 0) < 1) {
    c.fail(fmt::format("size is {}, must be at least 1", c.node().int_or("size", 0)));
  }
  infer_same(c);
}

void infer_mean_variance(InferContext& c) {
  infer_same(c);
  if (const SymbolicShape* x = c.shape(0)) {
    axes_in(c, c.node().ints_or("axes", {0, 2, 3}), x->size());
  }
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "BatchNormalization", 5, 5, 1, 1, 9, infer_batch_norm},
    {"", "InstanceNormalization", 3, 3, 1, 1, 6, infer_channel_norm},
    {"", "GroupNormalization", 3, 3, 1, 1, 21, infer_group_norm},
    {"", "LayerNormalization", 2, 3, 1, 3, 17, infer_layer_norm},
    {"", "RMSNormalization", 2, 2, 1, 1, 23, infer_rms_norm},
    {"", "LRN", 1, 1, 1, 1, 1, infer_lrn},
    {"", "LpNormalization", 1, 1, 1, 1, 1, infer_along_axis},
    {"", "MeanVarianceNormalization", 1, 1, 1, 1, 9, infer_mean_variance},
    {"", "Softmax", 1, 1, 1, 1, 13, infer_along_axis},
    {"", "LogSoftmax", 1, 1, 1, 1, 13, infer_along_axis},
    {"", "Hardmax", 1, 1, 1, 1, 13, infer_along_axis},
};

}  // namespace

std::span<const OpInfo> normalization_ops() {
  return kOps;
}

}  // namespace narrow::ops
