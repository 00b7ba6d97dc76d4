// SPDX-License-Identifier: Apache-2.0
// The operators of the domain "narrow" (graph/lowered_ops.h).
#include <fmt/format.h>

#include <algorithm>

#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/ops/conv_infer.h"
#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/tables.h"
#include "narrow/quant/blocks/block_codec.h"

namespace narrow::ops {
namespace {

/// The type of an output whose grid stands at `scale` and `scale` + 1: float32 without a scale, the
/// zero_point's type with one. Without zero_point the annotation says it.
DType grid_dtype(const InferContext& c, size_t scale) {
  if (!c.has_input(scale)) return DType::float32;
  return c.has_input(scale + 1) ? c.dtype(scale + 1) : DType::undefined;
}

/// Scale and zero_point hold one number, or one for each of `channels` where that is given.
void require_scales(const InferContext& c, size_t scale, const Dim* channels) {
  for (const size_t i : {scale, scale + 1}) {
    const SymbolicShape* shape = c.shape(i);
    if (!shape || product(c, *shape) == Dim(1)) continue;
    if (!channels) {
      c.fail(fmt::format("input {} has shape {}, expected one number", i, to_string(*shape)));
    }
    require_channel_vector(c, i, *channels, "scales of the weight");
  }
}

/// An entry for each 8-bit code.
void require_table(InferContext& c, size_t i) {
  constexpr int64_t kEntries = 256;
  require_rank(c, i, 1);
  if (const SymbolicShape* table = c.shape(i)) unify(c, (*table)[0], kEntries, "the table");
}

void infer_qconv(InferContext& c) {
  require_integer(c, 0);
  require_integer(c, 3);
  infer_conv(c, 3, 8, grid_dtype(c, 6));
  require_scales(c, 1, nullptr);
  require_scales(c, 6, nullptr);
  if (const SymbolicShape* w = c.shape(3)) require_scales(c, 4, &(*w)[0]);
}

void infer_qconv_add(InferContext& c) {
  infer_qconv(c);
  require_integer(c, 9);
  for (const size_t scale : {size_t{10}, size_t{12}, size_t{14}}) require_scales(c, scale, nullptr);
  auto shape = c.outputs()[0].shape;
  if (shape && c.shape(9)) shape = unify(c, *shape, *c.shape(9), "both sides of the sum");
  c.set_output(0, grid_dtype(c, 14), std::move(shape));
}

void infer_qconv_lookup(InferContext& c) {
  infer_qconv(c);
  require_table(c, 9);
  c.set_output(0, c.dtype(9), c.outputs()[0].shape);
}

/// a [.., M, K] times b [.., K, N], or [N, K] with transB; a bias of N.
void infer_product(InferContext& c, size_t b, size_t bias, DType output) {
  if (c.node().int_or("transB", 0) == 0) {
    infer_matmul(c, 0, b, output);
  } else {
    require_rank(c, b, 2);
    require_min_rank(c, 0, 1);
    const SymbolicShape* x = c.shape(0);
    const SymbolicShape* w = c.shape(b);
    if (!x || !w) return c.set_output(0, output, std::nullopt);
    unify(c, x->back(), (*w)[1], "the inner dimensions of the product");
    SymbolicShape y = *x;
    y.back() = (*w)[0];
    c.set_output(0, output, std::move(y));
  }
  const auto& y = c.outputs()[0].shape;
  if (!y || y->empty() || !c.shape(bias)) return;
  const SymbolicShape& added = *c.shape(bias);
  if (added.size() == 1 && added[0] != Dim(1)) {
    unify(c, added[0], y->back(), "bias");
  } else if (broadcast(c, *y, added).size() != y->size()) {
    c.fail(fmt::format("bias {} does not broadcast to {}", to_string(added), to_string(*y)));
  }
}

void infer_half_gemm(InferContext& c) {
  require_float(c, 0);
  require_float(c, 1);
  require_rank(c, 1, 2);
  infer_product(c, 1, 2, DType::float32);
}

void infer_qgemm(InferContext& c) {
  require_integer(c, 0);
  require_integer(c, 3);
  infer_product(c, 3, 8, grid_dtype(c, 6));
  require_scales(c, 1, nullptr);
  require_scales(c, 6, nullptr);
}

void infer_qbinary(InferContext& c) {
  const std::string op = c.node().string_or("op", "");
  if (op != "Add" && op != "Sub" && op != "Mul" && op != "Div") {
    c.fail(fmt::format("op '{}' is none of Add, Sub, Mul, Div", op));
  }
  require_integer(c, 0);
  require_integer(c, 3);
  for (const size_t scale : {size_t{1}, size_t{4}, size_t{6}}) require_scales(c, scale, nullptr);
  std::optional<SymbolicShape> shape;
  if (c.shape(0) && c.shape(3)) shape = broadcast(c, *c.shape(0), *c.shape(3));
  c.set_output(0, grid_dtype(c, 6), std::move(shape));
}

/// (y_scale, y_zero_point, x1, x1_scale, x1_zero_point, x2, ...), trailing zero_points may be
/// absent.
void infer_qconcat(InferContext& c) {
  const DType dtype = grid_dtype(c, 0);
  std::optional<SymbolicShape> y;
  for (size_t i = 2; i < c.node().inputs.size(); i += 3) {
    require_integer(c, i);
    require_min_rank(c, i, 1);
    if (!c.shape(i)) return c.set_output(0, dtype, std::nullopt);
    y = y ? concatenated(c, *y, *c.shape(i), axis_attribute(c, 0, y->size())) : *c.shape(i);
  }
  c.set_output(0, dtype, std::move(y));
}

void infer_qlookup(InferContext& c) {
  require_integer(c, 0);
  require_table(c, 1);
  const SymbolicShape* x = c.shape(0);
  c.set_output(0, c.dtype(1), x ? std::optional(*x) : std::nullopt);
}

void infer_qaverage_pool(InferContext& c) {
  require_integer(c, 0);
  infer_pool(c, grid_dtype(c, 3));
}

void infer_qglobal_pool(InferContext& c) {
  require_integer(c, 0);
  infer_global_pool(c, grid_dtype(c, 3));
  auto& shape = c.outputs()[0].shape;
  if (shape && c.node().int_or("keepdims", 1) == 0) shape->resize(2);
}

void infer_weight_only_conv(InferContext& c) {
  require_float(c, 0);
  require_integer(c, 1);
  infer_conv(c, 1, 4, c.dtype(0));
}

void infer_weight_only_gemm(InferContext& c) {
  require_float(c, 0);
  require_integer(c, 1);
  infer_product(c, 1, 4, c.dtype(0));
}

void check_granularity(const InferContext& c) {
  const std::string granularity = c.node().string_or("granularity", "per_tensor");
  if (granularity != "per_tensor" && granularity != "per_sample") {
    c.fail(fmt::format("granularity '{}' is neither per_tensor nor per_sample", granularity));
  }
}

void infer_dynamic_conv(InferContext& c) {
  check_granularity(c);
  infer_weight_only_conv(c);
}

void infer_dynamic_gemm(InferContext& c) {
  check_granularity(c);
  infer_weight_only_gemm(c);
}

/// The residual has the shape of the output.
void require_residual(InferContext& c, size_t input) {
  const auto& y = c.outputs()[0].shape;
  if (y && c.shape(input)) unify(c, *y, *c.shape(input), "the residual");
}

void infer_fused_conv(InferContext& c) {
  require_same_dtype(c, 0, 1);
  infer_conv(c, 1, 2, c.dtype(0));
  require_residual(c, 3);
}

void infer_fused_gemm(InferContext& c) {
  require_same_dtype(c, 0, 1);
  infer_gemm(c, 0, 1, 2, c.dtype(0));
  require_residual(c, 3);
}

/// Attributes `type` and `columns` of input `w`, whose rows they must fit; the columns.
int64_t block_columns(InferContext& c, size_t w) {
  const std::string type = c.node().string_or("type", "");
  const BlockCodec* codec = find_codec(type);
  if (codec == nullptr) c.fail(fmt::format("type '{}' is no block type", type));
  const int64_t columns = c.node().int_or("columns", -1);
  constexpr int64_t kMost = int64_t{1} << 40;  // so that bytes of a row cannot overflow
  if (columns < 0 || columns > kMost || columns % codec->block_values != 0) {
    c.fail(fmt::format("columns is {}, {} has blocks of {}", columns, type, codec->block_values));
  }
  if (c.dtype(w) != DType::uint8 && c.dtype(w) != DType::undefined) {
    c.fail(fmt::format("blocks are bytes, input {} is {}", w, to_string(c.dtype(w))));
  }
  require_min_rank(c, w, 1);
  const int64_t bytes = columns / codec->block_values * codec->block_bytes;
  if (const SymbolicShape* shape = c.shape(w)) unify(c, shape->back(), bytes, "bytes of a row");
  return columns;
}

void infer_decode_blocks(InferContext& c) {
  const int64_t columns = block_columns(c, 0);
  std::optional<SymbolicShape> y;
  if (c.shape(0)) {
    y = *c.shape(0);
    y->back() = Dim(columns);
  }
  c.set_output(0, DType::float32, std::move(y));
}

void infer_block_gemm(InferContext& c) {
  require_float(c, 0);
  require_min_rank(c, 0, 1);
  require_rank(c, 1, 2);
  const int64_t columns = block_columns(c, 1);
  std::optional<SymbolicShape> y;
  if (c.shape(0)) {
    y = *c.shape(0);
    unify(c, y->back(), columns, "the inner dimensions of the product");
    y->back() = c.shape(1) ? (*c.shape(1))[0] : Dim();
  }
  c.set_output(0, DType::float32, std::move(y));
}

void infer_dynamic_quantize_blocks(InferContext& c) {
  require_float(c, 0);
  require_min_rank(c, 0, 1);
  const int64_t block = c.node().int_or("block_size", kActivationBlock);
  if (block < 1) c.fail(fmt::format("block_size is {}", block));
  if (!c.shape(0)) {
    c.set_output(0, DType::int8, std::nullopt);
    return c.set_output(1, DType::float32, std::nullopt);
  }
  SymbolicShape scales = *c.shape(0);
  Dim& last = scales.back();
  last = last.known() ? Dim(last.value / block + (last.value % block != 0 ? 1 : 0)) : Dim();
  c.set_output(0, DType::int8, *c.shape(0));
  c.set_output(1, DType::float32, std::move(scales));
}

constexpr uint32_t bit(int input) {
  return uint32_t{1} << input;
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference, zero_points that may be absent
    {kDomain, kQConv, 5, 9, 1, 1, 1, infer_qconv, bit(2)},
    {kDomain, kQConvAdd, 15, 16, 1, 1, 1, infer_qconv_add,
     bit(2) | bit(5) | bit(7) | bit(8) | bit(11) | bit(13)},
    {kDomain, kQConvLookup, 10, 10, 1, 1, 1, infer_qconv_lookup, bit(2) | bit(5) | bit(7) | bit(8)},
    {kDomain, kQGemm, 5, 9, 1, 1, 1, infer_qgemm, bit(2)},
    {kDomain, kQBinary, 7, 8, 1, 1, 1, infer_qbinary, bit(2) | bit(5)},
    {kDomain, kQConcat, 4, -1, 1, 1, 1, infer_qconcat, bit(1)},
    {kDomain, kQLookup, 2, 2, 1, 1, 1, infer_qlookup},
    {kDomain, kQAveragePool, 4, 5, 1, 1, 1, infer_qaverage_pool, bit(2)},
    {kDomain, kQGlobalAveragePool, 4, 5, 1, 1, 1, infer_qglobal_pool, bit(2)},
    {kDomain, kWConv, 3, 5, 1, 1, 1, infer_weight_only_conv},
    {kDomain, kHalfGemm, 2, 3, 1, 1, 1, infer_half_gemm},
    {kDomain, kWGemm, 3, 5, 1, 1, 1, infer_weight_only_gemm},
    {kDomain, kDynamicQConv, 3, 5, 1, 1, 1, infer_dynamic_conv},
    {kDomain, kDynamicQGemm, 3, 5, 1, 1, 1, infer_dynamic_gemm},
    {kDomain, kDecodeBlocks, 1, 1, 1, 1, 1, infer_decode_blocks},
    {kDomain, kDynamicQuantize, 1, 1, 2, 2, 1, infer_dynamic_quantize_blocks},
    {kDomain, kBlockGemm, 2, 2, 1, 1, 1, infer_block_gemm},
    {kDomain, kWBlockGemm, 2, 2, 1, 1, 1, infer_block_gemm},
    {kDomain, "FusedConv", 2, 4, 1, 1, 1, infer_fused_conv},
    {kDomain, "FusedGemm", 2, 4, 1, 1, 1, infer_fused_gemm},
};

}  // namespace

std::span<const OpInfo> narrow_ops() {
  return kOps;
}

}  // namespace narrow::ops
