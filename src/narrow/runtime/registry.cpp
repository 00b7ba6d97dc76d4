// SPDX-License-Identifier: Apache-2.0
// Every implementation of every operator, from the tables of runtime/ops.
#include <array>
#include <span>
#include <string_view>

#include "narrow/runtime/op_impl.h"

namespace narrow {

__attribute__((weak)) std::span<const OpImpl> integer_op_impls();
__attribute__((weak)) std::span<const OpImpl> float_op_impls();

std::vector<const OpImpl*> implementations(std::string_view domain, std::string_view op) {
  std::array<std::span<const OpImpl>, 2> tables;
  if (integer_op_impls) tables[0] = integer_op_impls();
  if (float_op_impls) tables[1] = float_op_impls();
  std::vector<const OpImpl*> rows;
  for (const std::span<const OpImpl> table : tables) {
    for (const OpImpl& row : table) {
      if (domain == row.domain && op == row.op) rows.push_back(&row);
    }
  }
  return rows;
}

}  // namespace narrow
