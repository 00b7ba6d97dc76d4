// SPDX-License-Identifier: Apache-2.0
// Operators of detection and sampling heads.
#include <fmt/format.h>

#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

/// As many rows (batch, class, box) as boxes are selected.
void infer_non_max_suppression(InferContext& c) {
  require_rank(c, 0, 3);
  require_rank(c, 1, 3);
  const SymbolicShape* boxes = c.shape(0);
  const SymbolicShape* scores = c.shape(1);
  if (boxes) unify(c, (*boxes)[2], 4, "the last dimension of boxes");
  if (boxes && scores) unify(c, (*boxes)[1], (*scores)[2], "the number of boxes");
  c.set_output(0, DType::int64, SymbolicShape{Dim(), Dim(3)});
}

void infer_roi_align(InferContext& c) {
  require_rank(c, 0, 4);
  require_rank(c, 1, 2);
  require_rank(c, 2, 1);
  const int64_t height = c.node().int_or("output_height", 1);
  const int64_t width = c.node().int_or("output_width", 1);
  if (height < 1 || width < 1) c.fail(fmt::format("an output of {} x {}", height, width));
  const SymbolicShape* x = c.shape(0);
  const SymbolicShape* rois = c.shape(1);
  if (rois) unify(c, (*rois)[1], 4, "the last dimension of rois");
  Dim count = rois ? (*rois)[0] : Dim();
  if (const SymbolicShape* batch = c.shape(2)) count = unify(c, count, (*batch)[0], "rois");
  c.set_output(0, c.dtype(0), SymbolicShape{count, x ? (*x)[1] : Dim(), height, width});
}

void infer_grid_sample(InferContext& c) {
  require_min_rank(c, 0, 3);
  const SymbolicShape* x = c.shape(0);
  const SymbolicShape* grid = c.shape(1);
  if (!x || !grid) return c.set_output(0, c.dtype(0), std::nullopt);
  require_rank(c, 1, x->size());
  unify(c, grid->back(), static_cast<int64_t>(x->size()) - 2, "the last dimension of grid");
  SymbolicShape y = {unify(c, (*x)[0], (*grid)[0], "the batch"), (*x)[1]};
  y.insert(y.end(), grid->begin() + 1, grid->end() - 1);
  c.set_output(0, c.dtype(0), std::move(y));
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "NonMaxSuppression", 2, 5, 1, 1, 10, infer_non_max_suppression},
    {"", "RoiAlign", 3, 3, 1, 1, 16, infer_roi_align},
    {"", "GridSample", 2, 2, 1, 1, 20, infer_grid_sample},
};

}  // namespace

std::span<const OpInfo> detection_ops() {
  return kOps;
}

}  // namespace narrow::ops
