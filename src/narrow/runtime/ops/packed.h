// SPDX-License-Identifier: Apache-2.0
// Single elements of packed sub-byte tensors: the first one in the low bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "narrow/core/dtype.h"

namespace narrow::ops {

inline int32_t load_packed(const std::byte* data, DType dtype, int64_t i) {
  const int width = bits(dtype);
  const int64_t per_byte = 8 / width;
  const int shift = static_cast<int>(i % per_byte) * width;
  const int mask = (1 << width) - 1;
  const int code = (static_cast<int>(data[i / per_byte]) >> shift) & mask;
  return is_signed_integer(dtype) && code >> (width - 1) != 0 ? code - mask - 1 : code;
}

/// Neighbours share a byte: never from two threads.
inline void store_packed(std::byte* data, DType dtype, int64_t i, int32_t code) {
  const int width = bits(dtype);
  const int64_t per_byte = 8 / width;
  const int shift = static_cast<int>(i % per_byte) * width;
  const int mask = (1 << width) - 1;
  const int old = static_cast<int>(data[i / per_byte]) & ~(mask << shift);
  data[i / per_byte] = static_cast<std::byte>(old | ((code & mask) << shift));
}

}  // namespace narrow::ops
