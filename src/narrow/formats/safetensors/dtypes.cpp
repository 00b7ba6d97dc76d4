// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/safetensors/dtypes.h"

namespace narrow::safetensors {
namespace {

constexpr DTypeRow kRows[] = {
    {"BOOL", 8, DType::boolean},      {"U8", 8, DType::uint8},
    {"I8", 8, DType::int8},           {"I16", 16, DType::int16},
    {"U16", 16, DType::uint16},       {"F16", 16, DType::float16},
    {"BF16", 16, DType::bfloat16},    {"I32", 32, DType::int32},
    {"U32", 32, DType::uint32},       {"F32", 32, DType::float32},
    {"F64", 64, DType::float64},      {"I64", 64, DType::int64},
    {"U64", 64, DType::uint64},       {"F8_E4M3", 8, DType::undefined},
    {"F8_E5M2", 8, DType::undefined}, {"F8_E8M0", 8, DType::undefined},
    {"F4", 4, DType::undefined},      {"F6_E2M3", 6, DType::undefined},
    {"F6_E3M2", 6, DType::undefined}, {"C64", 64, DType::undefined},
};

}  // namespace

const DTypeRow* find_dtype(std::string_view name) {
  for (const DTypeRow& row : kRows) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

const DTypeRow* find_dtype(DType dtype) {
  if (dtype == DType::undefined) return nullptr;
  for (const DTypeRow& row : kRows) {
    if (row.dtype == dtype) return &row;
  }
  return nullptr;
}

}  // namespace narrow::safetensors
