// SPDX-License-Identifier: Apache-2.0
// Operators of the domain com.microsoft that quantized files of other tools hold. Readers usually
// rewrite them; these rows keep the rest inspectable.
#include <fmt/format.h>

#include <algorithm>

#include "narrow/graph/ops/conv_infer.h"
#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/quantization.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {
namespace {

constexpr const char* kMicrosoft = "com.microsoft";

/// The zero_point's type, or the first input's where that is absent.
DType code_dtype(const InferContext& c, size_t zero_point, size_t data) {
  return c.has_input(zero_point) ? c.dtype(zero_point) : c.dtype(data);
}

/// (a, a_scale, a_zero_point, b, b_scale, b_zero_point, c_scale, c_zero_point)
void infer_qlinear_binary(InferContext& c) {
  require_integer(c, 0);
  require_integer(c, 3);
  std::optional<SymbolicShape> shape;
  if (c.shape(0) && c.shape(3)) shape = broadcast(c, *c.shape(0), *c.shape(3));
  c.set_output(0, code_dtype(c, 7, 0), std::move(shape));
}

/// (x, x_scale, x_zero_point, y_scale, y_zero_point)
void infer_qlinear_unary(InferContext& c) {
  require_integer(c, 0);
  const SymbolicShape* x = c.shape(0);
  c.set_output(0, code_dtype(c, 4, 0), x ? std::optional(*x) : std::nullopt);
}

void infer_qlinear_pool(InferContext& c) {
  require_integer(c, 0);
  if (c.node().int_or("channels_last", 0) != 0) c.fail("channels_last is not supported");
  infer_pool(c, code_dtype(c, 4, 0));
}

void infer_qlinear_global_pool(InferContext& c) {
  require_integer(c, 0);
  infer_global_pool(c, code_dtype(c, 4, 0), c.node().int_or("channels_last", 0) != 0);
}

/// (a, a_scale, a_zero_point, b, b_scale, b_zero_point, c, y_scale, y_zero_point); float without
/// y_scale.
void infer_microsoft_qgemm(InferContext& c) {
  require_integer(c, 0);
  require_integer(c, 3);
  infer_gemm(c, 0, 3, 6, c.has_input(7) ? code_dtype(c, 8, 0) : DType::float32);
}

void infer_microsoft_conv(InferContext& c) {
  require_same_dtype(c, 0, 1);
  infer_conv(c, 1, 2, c.dtype(0));
}

void infer_microsoft_gemm(InferContext& c) {
  require_same_dtype(c, 0, 1);
  infer_gemm(c, 0, 1, 2, c.dtype(0));
}

/// MatMul of operands whose last two axes may be exchanged.
void infer_fused_matmul(InferContext& c) {
  require_same_dtype(c, 0, 1);
  if (c.node().int_or("transBatchA", 0) != 0 || c.node().int_or("transBatchB", 0) != 0) {
    c.fail("transBatchA and transBatchB are not supported");
  }
  if (!c.shape(0) || !c.shape(1)) return c.set_output(0, c.dtype(0), std::nullopt);
  require_min_rank(c, 0, 2);
  require_min_rank(c, 1, 2);
  SymbolicShape a = *c.shape(0);
  SymbolicShape b = *c.shape(1);
  if (c.node().int_or("transA", 0) != 0) std::swap(a.back(), a[a.size() - 2]);
  if (c.node().int_or("transB", 0) != 0) std::swap(b.back(), b[b.size() - 2]);
  unify(c, a.back(), b[b.size() - 2], "the inner dimensions of the product");
  SymbolicShape y =
      broadcast(c, SymbolicShape(a.begin(), a.end() - 2), SymbolicShape(b.begin(), b.end() - 2));
  y.push_back(a[a.size() - 2]);
  y.push_back(b.back());
  c.set_output(0, c.dtype(0), std::move(y));
}

void infer_qlinear_concat(InferContext& c) {
  const size_t count = c.node().inputs.size();
  const DType dtype = c.dtype(1);
  std::optional<SymbolicShape> y;
  for (size_t i = 2; i < count; i += 3) {
    if (!c.shape(i)) return c.set_output(0, dtype, std::nullopt);
    y = y ? concatenated(c, *y, *c.shape(i), axis_attribute(c, 0, y->size())) : *c.shape(i);
  }
  c.set_output(0, dtype, std::move(y));
}

constexpr uint32_t kXZero = 1u << 2;
constexpr uint32_t kBZero = 1u << 5;

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference, zero_points that may be absent
    {kMicrosoft, "QLinearAdd", 7, 8, 1, 1, 1, infer_qlinear_binary, kXZero | kBZero},
    {kMicrosoft, "QLinearMul", 7, 8, 1, 1, 1, infer_qlinear_binary, kXZero | kBZero},
    {kMicrosoft, "QLinearConcat", 5, -1, 1, 1, 1, infer_qlinear_concat},
    {kMicrosoft, "QLinearAveragePool", 4, 5, 1, 1, 1, infer_qlinear_pool, kXZero},
    {kMicrosoft, "QLinearGlobalAveragePool", 5, 5, 1, 1, 1, infer_qlinear_global_pool},
    {kMicrosoft, "QLinearLeakyRelu", 4, 5, 1, 1, 1, infer_qlinear_unary, kXZero},
    {kMicrosoft, "QLinearSigmoid", 4, 5, 1, 1, 1, infer_qlinear_unary, kXZero},
    {kMicrosoft, "QLinearSoftmax", 5, 5, 1, 1, 1, infer_qlinear_unary, kXZero},
    {kMicrosoft, "QGemm", 6, 9, 1, 1, 1, infer_microsoft_qgemm},
    {kMicrosoft, "FusedConv", 2, 4, 1, 1, 1, infer_microsoft_conv},
    {kMicrosoft, "FusedGemm", 2, 3, 1, 1, 1, infer_microsoft_gemm},
    {kMicrosoft, "FusedMatMul", 2, 2, 1, 1, 1, infer_fused_matmul},
    {kMicrosoft, "Gelu", 1, 1, 1, 1, 1, infer_same},
    {kMicrosoft, "QuickGelu", 1, 1, 1, 1, 1, infer_same},
};

}  // namespace

std::span<const OpInfo> com_microsoft_ops() {
  return kOps;
}

}  // namespace narrow::ops
