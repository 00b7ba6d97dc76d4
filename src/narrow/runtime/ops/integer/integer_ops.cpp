// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/integer/integer_ops.h"

#include "narrow/runtime/ops/integer/operands.h"

namespace narrow {
namespace {

std::vector<OpImpl> collect() {
  std::vector<OpImpl> rows;
  for (const auto family :
       {integer::conv_rows(), integer::gemm_rows(), integer::quantize_rows(), integer::pool_rows(),
        integer::binary_rows(), integer::lookup_rows(), integer::dynamic_rows(),
        integer::weight_only_rows(), integer::block_rows()}) {
    rows.insert(rows.end(), family.begin(), family.end());
  }
  return rows;
}

}  // namespace

std::span<const OpImpl> integer_op_impls() {
  static const std::vector<OpImpl> rows = collect();
  return rows;
}

}  // namespace narrow
