// SPDX-License-Identifier: Apache-2.0
// Element types. One table row each: name, bits, class. Sub-byte types are stored packed, the first
// element in the low bits (the ONNX layout).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "narrow/core/half.h"

namespace narrow {

/// Values are append-only: they are written to statistics files.
enum class DType : uint8_t {
  undefined = 0,
  float32,
  float64,
  float16,
  bfloat16,
  int8,
  uint8,
  int16,
  uint16,
  int32,
  uint32,
  int64,
  uint64,
  boolean,
  int4,
  uint4,
  int2,
  uint2,
  string,  // known by name only: no tensor of strings is stored
};

enum class DTypeKind : uint8_t { none, floating, signed_integer, unsigned_integer, logical, text };

struct DTypeInfo {
  DType dtype;
  const char* name;
  int bits;
  DTypeKind kind;
};

const DTypeInfo& info(DType dtype);
inline const char* to_string(DType dtype) {
  return info(dtype).name;
}
std::optional<DType> dtype_from_string(std::string_view name);

inline int bits(DType dtype) {
  return info(dtype).bits;
}
inline bool is_float(DType dtype) {
  return info(dtype).kind == DTypeKind::floating;
}
inline bool is_signed_integer(DType dtype) {
  return info(dtype).kind == DTypeKind::signed_integer;
}
inline bool is_unsigned_integer(DType d) {
  return info(d).kind == DTypeKind::unsigned_integer;
}
inline bool is_integer(DType dtype) {
  return is_signed_integer(dtype) || is_unsigned_integer(dtype);
}
inline bool is_sub_byte(DType dtype) {
  return bits(dtype) > 0 && bits(dtype) < 8;
}

/// Smallest and largest value of an integer type of at most 32 bits.
int64_t integer_min(DType dtype);
int64_t integer_max(DType dtype);

/// The DType of a C++ element type; only types with a row of their own compile.
template <class T>
struct DTypeOf;
#define NARROW_DTYPE_OF(type, name)             \
  template <>                                   \
  struct DTypeOf<type> {                        \
    static constexpr DType value = DType::name; \
  }
NARROW_DTYPE_OF(float, float32);
NARROW_DTYPE_OF(double, float64);
NARROW_DTYPE_OF(Half, float16);
NARROW_DTYPE_OF(BFloat16, bfloat16);
NARROW_DTYPE_OF(int8_t, int8);
NARROW_DTYPE_OF(uint8_t, uint8);
NARROW_DTYPE_OF(int16_t, int16);
NARROW_DTYPE_OF(uint16_t, uint16);
NARROW_DTYPE_OF(int32_t, int32);
NARROW_DTYPE_OF(uint32_t, uint32);
NARROW_DTYPE_OF(int64_t, int64);
NARROW_DTYPE_OF(uint64_t, uint64);
NARROW_DTYPE_OF(bool, boolean);
#undef NARROW_DTYPE_OF

}  // namespace narrow
