// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/float_ops.h"

#include <vector>

#include "narrow/runtime/ops/rows.h"

namespace narrow {
namespace {

std::vector<OpImpl> collect() {
  std::vector<OpImpl> all;
  for (const auto family :
       {ops::unary_rows, ops::binary_rows, ops::onednn_conv_rows, ops::onednn_matmul_rows,
        ops::conv_rows, ops::matmul_rows, ops::pool_rows, ops::softmax_rows, ops::movement_rows,
        ops::reshape_rows, ops::quantize_rows}) {
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
