// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/dtype.h"

#include <array>

namespace narrow {
namespace {

constexpr std::array kTable = {
    DTypeInfo{DType::undefined, "undefined", 0, DTypeKind::none},
    DTypeInfo{DType::float32, "float32", 32, DTypeKind::floating},
    DTypeInfo{DType::float64, "float64", 64, DTypeKind::floating},
    DTypeInfo{DType::float16, "float16", 16, DTypeKind::floating},
    DTypeInfo{DType::bfloat16, "bfloat16", 16, DTypeKind::floating},
    DTypeInfo{DType::int8, "int8", 8, DTypeKind::signed_integer},
    DTypeInfo{DType::uint8, "uint8", 8, DTypeKind::unsigned_integer},
    DTypeInfo{DType::int16, "int16", 16, DTypeKind::signed_integer},
    DTypeInfo{DType::uint16, "uint16", 16, DTypeKind::unsigned_integer},
    DTypeInfo{DType::int32, "int32", 32, DTypeKind::signed_integer},
    DTypeInfo{DType::uint32, "uint32", 32, DTypeKind::unsigned_integer},
    DTypeInfo{DType::int64, "int64", 64, DTypeKind::signed_integer},
    DTypeInfo{DType::uint64, "uint64", 64, DTypeKind::unsigned_integer},
    DTypeInfo{DType::boolean, "boolean", 8, DTypeKind::logical},
    DTypeInfo{DType::int4, "int4", 4, DTypeKind::signed_integer},
    DTypeInfo{DType::uint4, "uint4", 4, DTypeKind::unsigned_integer},
    DTypeInfo{DType::int2, "int2", 2, DTypeKind::signed_integer},
    DTypeInfo{DType::uint2, "uint2", 2, DTypeKind::unsigned_integer},
    DTypeInfo{DType::string, "string", 0, DTypeKind::text},
};

constexpr bool rows_are_in_order() {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<size_t>(kTable[i].dtype) != i) return false;
  }
  return true;
}
static_assert(rows_are_in_order());

}  // namespace

const DTypeInfo& info(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  return kTable[index < kTable.size() ? index : 0];
}

std::optional<DType> dtype_from_string(std::string_view name) {
  for (const DTypeInfo& row : kTable) {
    if (name == row.name && row.dtype != DType::undefined) return row.dtype;
  }
  return std::nullopt;
}

int64_t integer_min(DType dtype) {
  return is_signed_integer(dtype) ? -(int64_t{1} << (bits(dtype) - 1)) : 0;
}

int64_t integer_max(DType dtype) {
  return (int64_t{1} << (bits(dtype) - (is_signed_integer(dtype) ? 1 : 0))) - 1;
}

}  // namespace narrow
