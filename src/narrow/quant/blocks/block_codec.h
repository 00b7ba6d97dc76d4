// SPDX-License-Identifier: Apache-2.0
// Block codecs: weights stored as records of a fixed number of values with their own scales, as
// GGUF files have them. A row of a matrix is cut into blocks of `block_values`; each becomes
// `block_bytes` bytes. `decode` defines the value. All numbers are little-endian, d, m, dmin are
// binary16, and every product and sum below is one rounded float32 operation.
//
//   type   values bytes  bits    record, in order                   value of code q
//   f32         1     4  32      binary32                           itself
//   f16         1     2  16      binary16                           itself
//   bf16        1     2  16      bfloat16                           itself
//   q4_0       32    18  4.5     d, n[16]                           d * (q - 8)
//   q4_1       32    20  5       d, m, n[16]                        d * q + m
//   q5_0       32    22  5.5     d, h u32, n[16]                    d * (q - 16)
//   q5_1       32    24  6       d, m, h u32, n[16]                 d * q + m
//   q8_0       32    34  8.5     d, q i8[32]                        q * d
//   iq4_nl     32    18  4.5     d, n[16]                           d * t[q]
//   q2_k      256    84  2.625   a[16], c2[64], d, dmin             (d * s) * q - (dmin * o)
//   q3_k      256   110  3.4375  h[32], c2[64], s6[12], d           (d * (s - 32)) * (q - 4)
//   q4_k      256   144  4.5     d, dmin, so6[12], n[128]           (d * s) * q - (dmin * o)
//   q5_k      256   176  5.5     d, dmin, so6[12], h[32], n[128]    (d * s) * q - (dmin * o)
//   q6_k      256   210  6.5625  n[128], c2[64], s i8[16], d        (d * s) * (q - 32)
//   iq4_xs    256   136  4.25    d, sh u16, sl[4], n[128]           (d * (s - 32)) * t[q]
//
// Nibbles of 32-value types: value i < 16 is in the low four bits of n[i], value i + 16 in the high
// four. Bit i of h is the fifth bit of value i. iq4_xs has eight such runs of 32, one after the
// other. Groups of one scale: 16 values in q2_k, q3_k, q6_k; 32 in q4_k, q5_k, iq4_xs.
//   q2_k   a[g]: scale s in the low four bits, o in the high four. Values 128 k + 32 j + i
//          (j < 4, i < 32): bits 2j, 2j+1 of c2[32 k + i].
//   q3_k   c2 as q2_k; the third bit of value 32 j + i (j < 8) is bit j of h[i]. s6: see below.
//   q4_k   values 64 k + i and 64 k + 32 + i (i < 32): low and high nibble of n[32 k + i].
//   q5_k   nibbles as q4_k; the fifth bit of value 32 j + i is bit j of h[i].
//   q6_k   values 128 k + 32 j + i: the nibble is in n[64 k + 32 (j % 2) + i], low for j < 2, high
//          after; the two upper bits are bits 2j, 2j+1 of c2[32 k + i].
//   s6     sixteen 6-bit numbers: low four bits of g < 8 in the low nibble of byte g, of g >= 8 in
//          the high nibble of byte g - 8; upper two bits in bits 2 (g / 4) of byte 8 + g % 4.
//   so6    eight scales s and offsets o of 6 bits: for g < 4, s is in the low bits of byte g, o in
//          those of byte 4 + g; for g >= 4, the low four bits of s and o are the nibbles of byte
//          4 + g, their upper two bits the top bits of byte g - 4 and of byte g.
//   iq4_xs low four bits of s: nibble g of sl; upper two: bits 2g of sh.
//   t      -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113
//
// Scales of any sign and size are honoured when decoding. A NaN or infinite scale gives what the
// formula gives (NaN or infinities; which NaN is left open); `encode` never writes one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace narrow {

enum class BlockType : uint8_t {
  f32,
  f16,
  bf16,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  iq4_xs,
};

enum class EncodeMethod : uint8_t {
  rtn,  // scales from the extremes, codes to nearest: fast
  mse,  // scales searched for the least weighted square error after decoding
};

/// What an error counts beside its column's importance.
enum class Emphasis : uint8_t {
  none,       // nothing: the sum of importance * error^2 is minimised
  magnitude,  // times sqrt(x^2 + mean square of the block): large weights are kept better
  direction,  // the part of a block's error that lies along its weights counts twice
  both,       // magnitude and direction
};
// Why `direction`: a least-squares fit makes weights smaller, by as much as their error is large,
// and does so to all of them. Such errors do not cancel in a product with inputs that belong
// together. With errors e of weights x it minimises sum w e^2 + (sum w x e)^2 / sum w x^2, which
// the least-squares fit does when its scales are multiplied by 2 / (1 + r), r being the part of
// sum w x^2 that it explains. Measured with the correlations of the inputs of two language models,
// the output's error falls by 10 % at 2 bits, 3 % at 3 and 1 % at 4.

/// What gave the least divergence from two language models (7 million weights each), `importance`
/// being whether columns are weighted: direction, but with importance both in the types of 256
/// values from 3 bits on, where the divergence falls by up to 10 %.
Emphasis best_emphasis(BlockType type, bool importance);

const char* to_string(BlockType type);
const char* to_string(EncodeMethod method);
const char* to_string(Emphasis emphasis);

struct EncodeOptions {
  EncodeMethod method = EncodeMethod::mse;
  Emphasis emphasis = Emphasis::none;
  /// One weight per column (the mean square of the input that meets it), or empty: all 1. Used by
  /// mse alone. A column counts for at least 1/1000 of its block's mean, so that columns that were
  /// never seen stay sensible.
  std::span<const float> importance;
};

struct BlockCodec {
  BlockType type;
  const char* name;  // of the enumerator
  int block_values;
  int block_bytes;
  void (*decode)(const uint8_t* bytes, int64_t blocks, float* out);
  /// Finite values; importance is null or one per value.
  void (*encode)(const float* x, const float* importance, int64_t blocks, EncodeMethod method,
                 Emphasis emphasis, uint8_t* out);

  double bits_per_weight() const { return 8.0 * block_bytes / block_values; }
};

const BlockCodec& codec(BlockType type);
std::span<const BlockCodec> block_codecs();
/// Null for an unknown name.
const BlockCodec* find_codec(std::string_view name);

/// Bytes of a row; throws invalid_argument when `columns` is not a multiple of the block.
size_t row_bytes(BlockType type, int64_t columns);

/// Whole blocks to floats; throws invalid_argument when the sizes do not match.
void decode(BlockType type, std::span<const std::byte> bytes, std::span<float> out);

/// One row. Throws invalid_argument when sizes do not match or an importance is negative or not
/// finite, numeric_failure naming the first value that is NaN or infinite. Magnitudes past what the
/// type can hold become the largest it can.
void encode(BlockType type, std::span<const float> row, std::span<std::byte> out,
            const EncodeOptions& options = {});

/// Rows of a row-major matrix, in parallel; the same bytes for any number of threads. An error
/// names the row.
void encode_rows(BlockType type, std::span<const float> matrix, int64_t columns,
                 std::span<std::byte> out, const EncodeOptions& options = {});
void decode_rows(BlockType type, std::span<const std::byte> bytes, int64_t columns,
                 std::span<float> out);

}  // namespace narrow
