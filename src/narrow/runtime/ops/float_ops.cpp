// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/float_ops.h"

#include <vector>

#include "narrow/runtime/ops/rows.h"

namespace narrow {
namespace {

std::vector<OpImpl> collect() {
  std::vector<OpImpl> all;
  for (const auto family :
       {ops::onednn_conv_rows, ops::onednn_matmul_rows, ops::smooth_rows,
        ops::unary_rows,       ops::binary_rows,        ops::conv_rows,
        ops::matmul_rows,      ops::einsum_rows,        ops::pool_rows,
        ops::softmax_rows,     ops::norm_rows,          ops::reduce_rows,
        ops::reshape_rows,     ops::movement_rows,      ops::space_rows,
        ops::gather_rows,      ops::select_rows,        ops::shape_rows,
        ops::cast_rows,        ops::resize_rows,        ops::detection_rows,
        ops::quantize_rows,    ops::qlinear_rows,       ops::tiled_attention_rows,
        ops::attention_rows,   ops::half_gemm_rows}) {
    const auto rows = family();
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

}  // namespace

std::span<const OpImpl> float_op_impls() {
  static const std::vector<OpImpl> kAll = collect();
  return kAll;
}

}  // namespace narrow
