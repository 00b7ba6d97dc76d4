// SPDX-License-Identifier: Apache-2.0
// Every implementation of every operator, from the tables of runtime/ops.
#include <array>
#include <span>
#include <string_view>

#include "narrow/runtime/op_impl.h"
#include "narrow/runtime/ops/float_ops.h"
#include "narrow/runtime/ops/integer/integer_ops.h"

namespace narrow {

std::vector<const OpImpl*> implementations(std::string_view domain, std::string_view op) {
  std::vector<const OpImpl*> rows;
  for (const std::span<const OpImpl> table : {integer_op_impls(), float_op_impls()}) {
    for (const OpImpl& row : table) {
      if (domain == row.domain && op == row.op) rows.push_back(&row);
    }
  }
  return rows;
}

}  // namespace narrow
