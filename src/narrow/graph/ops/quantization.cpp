// SPDX-License-Identifier: Apache-2.0
// ONNX's quantization operators.
#include <fmt/format.h>

#include "narrow/graph/ops/conv_infer.h"
#include "narrow/graph/ops/infer_util.h"
#include "narrow/graph/ops/quantization.h"
#include "narrow/graph/ops/tables.h"

namespace narrow::ops {

void require_grid(const InferContext& c, size_t data, size_t scale, size_t zero_point) {
  const SymbolicShape* x = c.shape(data);
  const SymbolicShape* s = c.shape(scale);
  if (s && c.shape(zero_point)) unify(c, *s, *c.shape(zero_point), "scale and zero_point");
  const int64_t block = c.node().int_or("block_size", 0);
  if (block < 0) c.fail(fmt::format("block_size is {}", block));
  if (!s || product(c, *s) == Dim(1) || s->empty()) return;
  if (!x) return;
  if (block == 0) {
    if (s->size() != 1) {
      c.fail(fmt::format("scale has shape {}; a blocked one needs block_size", to_string(*s)));
    }
    unify(c, (*s)[0], (*x)[axis_attribute(c, 1, x->size())], "scale along the axis");
    return;
  }
  const size_t axis = axis_attribute(c, 1, x->size());
  if (s->size() != x->size()) {
    c.fail(fmt::format("scale {} and input {} differ in rank", to_string(*s), to_string(*x)));
  }
  for (size_t i = 0; i < x->size(); ++i) {
    const Dim& d = (*x)[i];
    const Dim expected =
        i != axis ? d : (d.known() ? Dim(d.value / block + (d.value % block != 0 ? 1 : 0)) : Dim());
    unify(c, (*s)[i], expected, "blocks of the scale");
  }
}

namespace {

void infer_quantize(InferContext& c) {
  require_grid(c, 0, 1, 2);
  DType dtype = dtype_attribute(c, "output_dtype", DType::undefined);
  if (c.has_input(2)) {
    if (dtype != DType::undefined && c.dtype(2) != DType::undefined && dtype != c.dtype(2)) {
      c.fail(fmt::format("output_dtype is {}, the zero_point {}", to_string(dtype),
                         to_string(c.dtype(2))));
    }
    dtype = c.dtype(2);
  } else if (dtype == DType::undefined) {
    dtype = DType::uint8;
  }
  const SymbolicShape* x = c.shape(0);
  c.set_output(0, dtype, x ? std::optional(*x) : std::nullopt);
}

void infer_dequantize(InferContext& c) {
  require_integer(c, 0);
  require_same_dtype(c, 0, 2);
  require_grid(c, 0, 1, 2);
  const SymbolicShape* x = c.shape(0);
  c.set_output(0, dtype_attribute(c, "output_dtype", c.dtype(1)),
               x ? std::optional(*x) : std::nullopt);
}

void infer_dynamic_quantize(InferContext& c) {
  require_float(c, 0);
  const SymbolicShape* x = c.shape(0);
  c.set_output(0, DType::uint8, x ? std::optional(*x) : std::nullopt);
  c.set_output(1, c.dtype(0), SymbolicShape{});
  c.set_output(2, DType::uint8, SymbolicShape{});
}

void infer_qlinear_conv(InferContext& c) {
  infer_conv(c, 3, 8, c.dtype(7));
}

void infer_qlinear_matmul(InferContext& c) {
  infer_matmul(c, 0, 3, c.dtype(7));
}

constexpr OpInfo kOps[] = {
    // domain, name, inputs, outputs, since, inference
    {"", "QuantizeLinear", 2, 3, 1, 1, 10, infer_quantize},
    {"", "DequantizeLinear", 2, 3, 1, 1, 10, infer_dequantize},
    {"", "DynamicQuantizeLinear", 1, 1, 3, 3, 11, infer_dynamic_quantize},
    {"", "QLinearConv", 8, 9, 1, 1, 10, infer_qlinear_conv},
    {"", "QLinearMatMul", 8, 8, 1, 1, 10, infer_qlinear_matmul},
};

}  // namespace

std::span<const OpInfo> quantization_ops() {
  return kOps;
}

}  // namespace narrow::ops
