// SPDX-License-Identifier: Apache-2.0
// Operators that give the same elements another shape or order.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/reshape.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

/// The elements of input 0 in the shape that output 0 has by now.
void propagate_reshaped(InferContext& c) {
  const auto& shape = c.outputs()[0].shape;
  const auto dims = shape ? concrete(*shape) : std::nullopt;
  auto value = c.value(0);
  if (!dims || !value) return;
  value->dims = *dims;
  c.set_value(0, std::move(*value));
}

void infer_identity(InferContext& c) {
  infer_same(c);
  propagate_reshaped(c);
}

/// Inference form: the output is the input, the mask is all true.
void infer_dropout(InferContext& c) {
  infer_same(c);
  propagate_reshaped(c);
  c.set_output(1, DType::boolean, c.outputs()[0].shape);
}

void infer_reshape(InferContext& c) {
  c.set_output(0, c.dtype(0), reshaped(c));
  propagate_reshaped(c);
}

void infer_flatten(InferContext& c) {
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, c.dtype(0), unknown_shape(2));
  const auto rank = static_cast<int64_t>(x->size());
  const int64_t axis = c.node().int_or("axis", 1);
  if (axis < -rank || axis > rank) {
    c.fail(fmt::format("axis {} is outside a tensor of rank {}", axis, rank));
  }
  const auto split = static_cast<size_t>(axis < 0 ? axis + rank : axis);
  const std::span<const Dim> dims(*x);
  c.set_output(0, c.dtype(0),
               SymbolicShape{product(c, dims.first(split)), product(c, dims.subspan(split))});
  propagate_reshaped(c);
}

void infer_transpose(InferContext& c) {
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, c.dtype(0), std::nullopt);
  std::vector<int64_t> perm(x->size());
  std::iota(perm.rbegin(), perm.rend(), 0);
  perm = c.node().ints_or("perm", perm);
  if (perm.size() != x->size()) {
    c.fail(fmt::format("perm has {} entries for rank {}", perm.size(), x->size()));
  }
  SymbolicShape y;
  for (const size_t axis : axes_in(c, perm, x->size())) y.push_back((*x)[axis]);
  c.set_output(0, c.dtype(0), std::move(y));
  const auto value = c.value(0);
  const auto dims = concrete(*c.outputs()[0].shape);
  if (!value || !dims) return;
  const Dims strides = row_major_strides(value->dims);
  std::vector<int64_t> indices;
  for (int64_t flat = 0; flat < num_elements(*dims); ++flat) {
    int64_t rest = flat;
    int64_t index = 0;
    for (size_t i = dims->size(); i-- > 0;) {
      index += rest % (*dims)[i] * strides[static_cast<size_t>(perm[i])];
      rest /= (*dims)[i];
    }
    indices.push_back(index);
  }
  move_elements(c, *value, *dims, indices);
}

/// All axes of extent 1 when none are named.
std::optional<SymbolicShape> squeezed(InferContext& c, const SymbolicShape& x) {
  std::vector<bool> dropped(x.size(), false);
  if (c.has_input(1)) {
    const auto axes = known_ints(c, 1);
    if (!axes) return std::nullopt;
    for (const size_t axis : axes_in(c, *axes, x.size())) {
      if (x[axis].known() && x[axis].value != 1) {
        c.fail(fmt::format("axis {} of {} is not 1", axis, to_string(x)));
      }
      dropped[axis] = true;
    }
  } else {
    for (size_t i = 0; i < x.size(); ++i) {
      if (!x[i].known()) return std::nullopt;
      dropped[i] = x[i].value == 1;
    }
  }
  SymbolicShape y;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!dropped[i]) y.push_back(x[i]);
  }
  return y;
}

void infer_squeeze(InferContext& c) {
  const SymbolicShape* x = c.shape(0);
  c.set_output(0, c.dtype(0), x ? squeezed(c, *x) : std::nullopt);
  propagate_reshaped(c);
}

void infer_unsqueeze(InferContext& c) {
  const SymbolicShape* x = c.shape(0);
  const auto axes = known_ints(c, 1);
  if (!x || !axes) return c.set_output(0, c.dtype(0), std::nullopt);
  const size_t rank = x->size() + axes->size();
  std::vector<bool> added(rank, false);
  for (const size_t axis : axes_in(c, *axes, rank)) added[axis] = true;
  SymbolicShape y;
  for (size_t i = 0, next = 0; i < rank; ++i) y.push_back(added[i] ? Dim(1) : (*x)[next++]);
  c.set_output(0, c.dtype(0), std::move(y));
  propagate_reshaped(c);
}

void infer_expand(InferContext& c) {
  const auto wanted = shape_from_input(c, 1);
  const SymbolicShape* x = c.shape(0);
  if (!wanted || !x) return c.set_output(0, c.dtype(0), std::nullopt);
  c.set_output(0, c.dtype(0), broadcast(c, *x, *wanted));
  const auto value = c.value(0);
  const auto dims = concrete(*c.outputs()[0].shape);
  if (!value || !dims || value->elements.size() != 1) return;
  num_elements(*dims);
  if (num_elements(*dims) > KnownValue::kMaxElements) return;
  move_elements(c, *value, *dims, std::vector<int64_t>(num_elements(*dims), 0));
}

void infer_tile(InferContext& c) {
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, c.dtype(0), std::nullopt);
  const auto repeats = shape_from_input(c, 1);
  if (!repeats) return c.set_output(0, c.dtype(0), unknown_shape(x->size()));
  if (repeats->size() != x->size()) {
    c.fail(fmt::format("{} repeats for an input of shape {}", repeats->size(), to_string(*x)));
  }
  SymbolicShape y;
  for (size_t i = 0; i < x->size(); ++i) y.push_back(multiply(c, (*x)[i], (*repeats)[i]));
  c.set_output(0, c.dtype(0), std::move(y));
}

int64_t block_size_of(const InferContext& c) {
  const int64_t block = c.node().int_or("blocksize", 0);
  if (block < 1 || block > (int64_t{1} << 20))
    c.fail(fmt::format("blocksize {} is out of range", block));
  return block;
}

void infer_depth_to_space(InferContext& c) {
  const int64_t block = block_size_of(c);
  require_rank(c, 0, 4);
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, c.dtype(0), unknown_shape(4));
  c.set_output(0, c.dtype(0),
               SymbolicShape{(*x)[0], divide(c, (*x)[1], block * block, "blocksize^2"),
                             multiply(c, (*x)[2], block), multiply(c, (*x)[3], block)});
}

void infer_space_to_depth(InferContext& c) {
  const int64_t block = block_size_of(c);
  require_rank(c, 0, 4);
  const SymbolicShape* x = c.shape(0);
  if (!x) return c.set_output(0, c.dtype(0), unknown_shape(4));
  c.set_output(0, c.dtype(0),
               SymbolicShape{(*x)[0], multiply(c, (*x)[1], block * block),
                             divide(c, (*x)[2], block, "blocksize"),
                             divide(c, (*x)[3], block, "blocksize")});
}

void infer_reverse_sequence(InferContext& c) {
  require_min_rank(c, 0, 2);
  require_rank(c, 1, 1);
  infer_same(c);
}

void infer_trilu(InferContext& c) {
  require_min_rank(c, 0, 2);
  infer_same(c);
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "Identity", 1, 1, 1, 1, 1, infer_identity},
    {"", "Dropout", 1, 3, 1, 2, 7, infer_dropout},
    {"", "Reshape", 2, 2, 1, 1, 5, infer_reshape},
    {"", "Flatten", 1, 1, 1, 1, 1, infer_flatten},
    {"", "Transpose", 1, 1, 1, 1, 1, infer_transpose},
    {"", "Squeeze", 1, 2, 1, 1, 1, infer_squeeze},
    {"", "Unsqueeze", 2, 2, 1, 1, 1, infer_unsqueeze},
    {"", "Expand", 2, 2, 1, 1, 8, infer_expand},
    {"", "Tile", 2, 2, 1, 1, 6, infer_tile},
    {"", "DepthToSpace", 1, 1, 1, 1, 1, infer_depth_to_space},
    {"", "SpaceToDepth", 1, 1, 1, 1, 1, infer_space_to_depth},
    {"", "ReverseSequence", 2, 2, 1, 1, 10, infer_reverse_sequence},
    {"", "Trilu", 1, 2, 1, 1, 14, infer_trilu},
};

}  // namespace

std::span<const OpInfo> movement_ops() {
  return kOps;
}

}  // namespace narrow::ops
