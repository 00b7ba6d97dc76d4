// SPDX-License-Identifier: Apache-2.0
// Codes as int32 and in their storage types: 2- and 4-bit codes lie packed in bytes, the first
// element in the low bits (the ONNX layout); the unused bits of a last byte are 0.
#pragma once

#include <cstdint>
#include <span>

#include "narrow/core/tensor.h"

namespace narrow {

/// Elements [begin, begin + out.size()) of an integer tensor of at most 16 bits.
void read_codes(const Tensor& codes, int64_t begin, std::span<int32_t> out);

/// Stores values that fit the dtype (they are truncated otherwise). For sub-byte types `begin` is a
/// multiple of the codes per byte; a partly filled last byte gets zeros in its upper bits, so only
/// the last write of a tensor may end inside a byte. Threads may write disjoint ranges.
void write_codes(Tensor& codes, int64_t begin, std::span<const int32_t> values);

/// A tensor from codes; throws numeric_failure naming the first that does not fit `storage`.
Tensor pack_codes(std::span<const int32_t> values, DType storage, Dims dims);

/// Codes in one byte each: int8 for int2, int4, int8; uint8 for uint2, uint4, uint8. An int8 or
/// uint8 tensor comes back as it is, sharing storage.
Tensor unpack_to_bytes(const Tensor& codes);

/// How many codes of a sub-byte type share a byte; 1 for wider types.
inline int64_t codes_per_byte(DType dtype) {
  return is_sub_byte(dtype) ? 8 / bits(dtype) : 1;
}

}  // namespace narrow
