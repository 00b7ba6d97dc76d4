// SPDX-License-Identifier: Apache-2.0
// Arguments and function types of the kernels: plain data, included by files that are compiled for
// one instruction set. Nothing here may be an inline function or a template (a differently compiled
// copy could be the one that the linker keeps).
//
// Packed weights, for every instruction set, in panels of 16 columns:
//   k0..3 of c0 | k0..3 of c1 | ... | k0..3 of c15     64 bytes
//   k4..7 of c0 | ...
// int8; K padded with zeros per tap to a multiple of 4, columns padded with zeros to 16.
// Of 4 bits, with one tap: the low nibbles of 64 bytes are the codes of one group of four k (two's
// complement), the high ones those of the next group; a last one without a partner has zeros there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrow::kernels {

inline constexpr int64_t kPanel = 16;       // columns of a panel
inline constexpr int64_t kGroup = 4;        // consecutive k of one column
inline constexpr int64_t kDepthBlock = 64;  // channels of a block of depthwise weights

/// What is stored for a sum. Codes of both signs are stored alike: the low byte.
enum class Out : int32_t { codes, f32, s32 };

/// From int32 sums to what is stored. Arrays have one entry per column, padded to whole panels.
///   acc  = sum + corr - row_sum * weight_zero            (wraps)
///   codes: t = float(acc) * multiplier; t = t < hi ? t : hi; t = t > lo ? t : lo;
///          rne(t) + zero_point, in [0, 255] or, where flip is 0x80, in [-128, 127]
///   f32:   t = float(acc) * multiplier (+ bias), then the same bounds
///   s32:   acc
struct Epilogue {
  const int32_t* corr;
  const float* multiplier;
  const int32_t* weight_zero;  // nullptr: symmetric weights
  const float* bias;           // f32 only; nullptr: none
  float lo;
  float hi;
  int32_t zero_point;
  uint8_t flip;  // 0x80 for int8 codes, 0 for uint8
  Out out;
};

/// dst[r][c] = epilogue(sum over taps t, k: rows[r][taps[t] + k] * w[c][t][k]), activations u8.
/// Reads 4 * run bytes per tap and row.
struct IgemmArgs {
  const uint8_t* const* rows;  // m pointers
  int64_t m;
  const int64_t* taps;  // byte offsets from each row pointer
  int64_t num_taps;
  int64_t run;            // groups of 4 k per tap
  const int8_t* weights;  // first panel; of num_taps * run * 64 bytes, of 4 bits (run + 1) / 2 * 64
  int64_t n;              // columns; the last panel may be ragged
  const int32_t* row_sums;  // m sums of the activations; used with weight_zero only
  Epilogue epilogue;
  void* dst;
  int64_t ldc;  // elements from row to row
};
using IgemmFn = void (*)(const IgemmArgs&) noexcept;

/// Packs b [k][n] with row pitch ldb into panels: (b ^ flip) as int8, and sums its columns.
/// `weights` holds whole panels with K rounded up to 4, `sums` whole panels. For activations on the
/// right.
using PackFn = void (*)(const uint8_t* b, int64_t ldb, int64_t k, int64_t n, uint8_t flip,
                        int8_t* weights, int32_t* sums) noexcept;

/// sums[r] = sum over taps, k < run_bytes of rows[r][taps[t] + k]. Reads nothing else.
using RowSumsFn = void (*)(const uint8_t* const* rows, int64_t m, const int64_t* taps,
                           int64_t num_taps, int64_t run_bytes, int32_t* sums) noexcept;

/// Depthwise: column c sees channel c only, one value per tap.
///   dst[r][c] = epilogue(sum over t: rows[r][taps[t] + c] * w[t][c])
/// Weights in blocks of 64 channels: [channels/64][taps/4][j 4][lane 4][4 channels][4 taps], where
/// (j, lane, i) is channel 16 * lane + 4 * j + i of the block: the order in which two levels of
/// 128-bit-lane unpacking leave bytes. The epilogue's arrays have that order too.
struct DepthwiseArgs {
  const uint8_t* const* rows;
  int64_t m;
  const int64_t* taps;  // padded with any valid offset to a multiple of 4
  int64_t num_taps;     // a multiple of 4
  const int8_t* weights;
  int64_t channels;
  int64_t period;     // channels behind which weights and epilogue begin again; a multiple of 64
  Epilogue epilogue;  // weight_zero: nullptr (asymmetric weights take another way)
  void* dst;
  int64_t ldc;
};
using DepthwiseFn = void (*)(const DepthwiseArgs&) noexcept;

/// One row of depthwise outputs: neighbours share the columns of their windows. Weights as above
/// with the taps of a column, padded to 4 * groups, behind each other: column, then kernel row.
struct DepthwiseRowArgs {
  const uint8_t* const* rows;  // 4 * groups kernel rows of the first output, any for padding
  int64_t groups;              // of four kernel rows
  int64_t columns;             // kernel columns
  int64_t stride;              // columns from output to output
  int64_t pixel;               // bytes from column to column
  int64_t m;                   // outputs
  const int8_t* weights;
  int64_t channels;
  Epilogue epilogue;  // weight_zero: nullptr
  void* dst;
  int64_t ldc;
};
/// For groups 1 and 2, 3 or 5 columns, stride 1 or 2. With one group and 3 columns of 16 or 32
/// channels, weights and epilogue repeat until they fill a block, and so do outputs (ldc and pixel
/// are the channels).
using DepthwiseRowFn = void (*)(const DepthwiseRowArgs& args) noexcept;

// Elementwise kernels see 8-bit codes of both signs as bytes: `flip` is 0x80 for int8 codes, whose
// zero_point is then given + 128, and 0 for uint8 codes.

/// t = src / scale, NaN gives 0; then the bounds; dst = rne(t) + zero_point, the low byte.
struct QuantizeArgs {
  float scale;
  float lo;
  float hi;
  int32_t zero_point;
};
using QuantizeFn = void (*)(uint8_t* dst, const float* src, int64_t count,
                            const QuantizeArgs& args) noexcept;

/// The pixels of 2 to 4 planes: dst[planes * p + j] = src[j * pitch + p].
using InterleaveFn = void (*)(uint8_t* dst, const uint8_t* src, int64_t pitch, int64_t planes,
                              int64_t pixels) noexcept;

/// dst = float((src ^ flip) - zero_point) * scale.
struct DequantizeArgs {
  float scale;
  int32_t zero_point;
  uint8_t flip;
};
using DequantizeFn = void (*)(float* dst, const uint8_t* src, int64_t count,
                              const DequantizeArgs& args) noexcept;

enum class Binary : int32_t { add, sub, mul, div };

/// x = float((a ^ flip_a) - zero_a), y likewise:
///   add, sub: t = x * scale_a +- y * scale_b, each product rounded
///   mul:      t = float of the integer product * scale_a
///   div:      t = x / y * scale_a, NaN gives 0
/// then the bounds; dst = rne(t) + zero_point, the low byte.
struct BinaryArgs {
  Binary op;
  uint8_t flip_a;
  uint8_t flip_b;
  int32_t zero_a;
  int32_t zero_b;
  float scale_a;
  float scale_b;
  float lo;
  float hi;
  int32_t zero_point;
};
/// steps: 1, or 0 where one a (b) serves all.
using BinaryFn = void (*)(uint8_t* dst, const uint8_t* a, int64_t step_a, const uint8_t* b,
                          int64_t step_b, int64_t count, const BinaryArgs& args) noexcept;

/// dst[i] = table[src[i]].
using LookupFn = void (*)(uint8_t* dst, const uint8_t* src, int64_t count,
                          const uint8_t* table) noexcept;

/// Windows over channels-last pixels: row r sees rows[r][taps[t] + c] for every tap.
struct WindowArgs {
  const uint8_t* const* rows;
  int64_t m;
  const int64_t* taps;
  int64_t num_taps;  // at least 1
  int64_t channels;
  uint8_t flip;
  uint8_t* dst;
  int64_t ldc;
};
/// The largest code of each channel.
using MaxPoolFn = void (*)(const WindowArgs& args) noexcept;

/// acc = sum of (x ^ flip) + corr; then the multiplier, bounds and zero_point as for codes.
struct AverageArgs {
  int32_t corr;
  float multiplier;
  float lo;
  float hi;
  int32_t zero_point;
};
using AveragePoolFn = void (*)(const WindowArgs& args, const AverageArgs& average) noexcept;

/// dst[i] = src[i] ^ mask.
using XorCopyFn = void (*)(uint8_t* dst, const uint8_t* src, int64_t count, uint8_t mask) noexcept;

/// Widens [*lo, *hi] to the values; NaN widens nothing.
using RangeFn = void (*)(const float* src, int64_t count, float* lo, float* hi) noexcept;

/// From int32 sums of activations that were quantized at run time to floats:
///   dst = float(sum - zero_point * column) * float32(scale * scale_w) + bias
/// with the product of the scales taken in double and one rounding per operation.
struct ScaleRowArgs {
  int32_t zero_point;     // of the activations
  float scale;            // of the activations
  const int32_t* column;  // sums of code - weight_zero per column
  const float* scale_w;   // per column
  const float* bias;      // per column; nullptr: none
};
/// dst may be src.
using ScaleRowFn = void (*)(float* dst, const int32_t* src, int64_t n,
                            const ScaleRowArgs& args) noexcept;

/// Float activations times integer weights:
///   dst[r][c] = bias[c] + sum over taps t, k < run:
///               rows[r][taps[t] + k] * ((code - zero[g][c]) * scale[g][c]),  g = group[t * run +
///               k]
/// in float with FMA where there is one; the order of the sum depends on m only through whether m
/// exceeds kFusedRows. Panels of 16 columns: [k][16] int8 codes, or [k][8] bytes of two unsigned
/// 4-bit codes, column j in the low bits of byte j and column j + 8 in its high bits. scale and
/// zero are [panels][groups][16], bias is padded to whole panels.
struct WgemmArgs {
  const float* const* rows;
  int64_t m;            // at most kWgemmRows
  const int64_t* taps;  // offsets in elements
  int64_t num_taps;
  int64_t run;
  const uint8_t* weights;
  int32_t bits;          // 8 or 4
  const int32_t* group;  // of each k; nullptr: all 0
  int64_t groups;
  const float* scale;
  const float* zero;
  const float* bias;
  int64_t n;
  float* dst;
  int64_t ldc;
};
inline constexpr int64_t kWgemmRows = 64;
/// Up to this many rows weights become floats in registers; above, in a buffer used by all rows.
inline constexpr int64_t kFusedRows = 8;
using WgemmFn = void (*)(const WgemmArgs& args) noexcept;

/// dst[r][c] = bias[c] + sum over k: a[r][k] * b[c][k], rows of k as checkpoints store them, b in
/// 16-bit floats or float32. In float with FMA where there is one; the order of a sum depends on k
/// alone.
struct HalfGemmArgs {
  const float* a;
  int64_t lda;
  int64_t m;
  const void* b;
  int64_t ldb;
  int64_t n;
  int64_t k;
  int32_t stored;     // b: 0 Float16, 1 BrainFloat, 2 float
  const float* bias;  // nullptr: none
  float* dst;
  int64_t ldc;
};
using HalfGemmFn = void (*)(const HalfGemmArgs& args) noexcept;

/// How keys and values lie in memory. `int8`: codes with a scale for each block of a row.
enum class KeyStore : int32_t { f32, f16, int8 };

/// One stretch of keys for a tile of query rows that share them. With s = softcap(scale * q . k) +
/// bias over the row's visible keys and m' = max(m, max s):
///   y   = y * e^(m - m') + sum of e^(s - m') * v
///   sum = sum * e^(m - m') + sum of e^(s - m'),  m = m'
/// A row that sees nothing keeps what it has.
struct AttendArgs {
  const float* const* q;  // `rows` pointers
  float* const* y;        // likewise
  int64_t rows;           // at most kAttendRows
  const void* k;          // the first key of the stretch, as `store` says
  const void* v;
  int64_t k_row;  // elements from key to key
  int64_t v_row;
  int64_t keys;   // 1 to kAttendKeys
  int64_t width;  // of q and k
  int64_t value_width;
  KeyStore store;
  const float* k_scales;  // of int8: those of the first key; nullptr otherwise
  const float* v_scales;
  int64_t k_scale_row;  // scales from key to key
  int64_t v_scale_row;
  int32_t scale_shift;  // 2^scale_shift numbers of a row share a scale: a multiple of 16, or all
  float scale;
  float softcap;         // 0: none
  const int64_t* begin;  // of each row: it sees keys [begin, end) of the stretch
  const int64_t* end;
  const float* bias;  // [rows][kAttendKeys]; nullptr: none
  float* largest;     // m; -infinity at first
  float* sum;         // 0 at first
};
inline constexpr int64_t kAttendRows = 32;
inline constexpr int64_t kAttendKeys = 64;
using AttendFn = void (*)(const AttendArgs& args) noexcept;

/// y[i] = f(x[i]); y may be x. silu is x / (1 + e^-x), gelu_tanh the tanh form of gelu, gelu the
/// one of erf.
enum class SmoothUnit : int32_t { silu, gelu_tanh, gelu };
using ActivateFn = void (*)(SmoothUnit unit, const float* x, float* y, int64_t count) noexcept;

// --- weights in blocks (narrow.BlockGemm)
// ---------------------------------------------------------
//
// Packed block weights: panels of 16 rows of w (output columns), the last one filled up with
// zeros. A panel is records along k, each its scales, rounded up to 64 bytes, then its codes: one
// stream, which cores read at up to twice the rate of two (scales and codes of a panel apart: 14
// to 24 GB/s where this is 31, AMD EPYC 9004). A record is one block, or two of 32 values that
// have no offsets; the last one is filled up with zeros.
//
// Scales, [16] being the rows of the panel, for each block
//   d f16[16]; m f16[16] where the form has offsets; then, in blocks of 256, for each group
//   s int8[16], and o uint8[16] where there are offsets (q2_k: one byte s | o << 4 instead).
//
// Codes, for each 32 values 8 steps of 4 k: step j holds codes of k = 4 j + i as [16 rows][4 i],
// 64 bytes in the bit planes that make up the code, low bits first:
//   8 bits  8 x 64 bytes: byte v is step v
//   4 bits  4 x 64 bytes: the low nibbles of v are step v, the high ones step v + 4
//   2 bits  2 x 64 bytes: bits 2p, 2p + 1 of v are step 4 v + p
//   1 bit   1 x 64 bytes: bit j is step j
// 3 bits are 2 + 1, 5 bits 4 + 1, 6 bits 4 + 2.

/// The types that are packed so; BlockForm in quant/blocks says what they mean.
enum class BlockKernel : int32_t {
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  iq4_nl,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_xs,
};

/// Activations quantized in runs of 32 values: codes in [-127, 127], one scale per run; per group
/// of the weight the sum of codes, as float and as int32 times minus the zero of the weight's
/// codes. Kernels take a stretch of kBlockStretch values of all rows before the next one, and in it
/// a tile of rows after the other: what they read lies in that order, stretch by stretch
///   codes [padded / tile][runs of the stretch][tile][32], scales [padded / tile][runs][tile],
///   start and sums [padded / tile][groups of the stretch][tile].
/// One row is plain. Rows from m to `padded` hold anything.
struct BlockRows {
  int8_t* codes;
  float* scales;
  int32_t* start;  // nullptr: not wanted (quantize_blocks only)
  float* sums;
  int64_t tile;    // 1 for one row, else KernelSet::block_tile
  int64_t padded;  // rows, a multiple of tile
};
inline constexpr int64_t kBlockStretch = 512;

/// scale = amax / 127, code = rne(x / scale) in [-127, 127]; 0 where the scale is 0, infinite or
/// NaN, as it is where a value of the block is. amax is the largest |x| by its bits.
struct QuantizeBlocksArgs {
  const float* x;  // [..][k], rows behind each other
  int64_t begin;   // the rows to quantize
  int64_t end;
  int64_t k;      // a multiple of 32
  int32_t group;  // of the weight: 16 or 32
  int32_t zero;   // of the weight's codes
  BlockRows rows;
};
using QuantizeBlocksFn = void (*)(const QuantizeBlocksArgs& args) noexcept;

/// dst[r][c] as lowered_ops.h defines BlockGemm, one result like the other whatever m is.
struct BlockGemmArgs {
  BlockKernel kernel;
  const uint8_t* weights;  // first panel
  int64_t panel_bytes;
  int64_t k;
  int64_t n;  // columns; the last panel may be ragged
  int64_t m;
  BlockRows rows;
  float* dst;
  int64_t ldc;
};
using BlockGemmFn = void (*)(const BlockGemmArgs& args) noexcept;

/// The same with rows of w as the file has them, for at most kMostBlockRows rows of x, whose codes,
/// scales and sums lie row by row.
struct BlockRowsArgs {
  int32_t form;  // place in block_forms()
  const uint8_t* weights;
  int64_t row_bytes;
  int64_t block_bytes;
  int64_t k;
  int64_t n;
  int64_t m;
  const int8_t* codes;  // [m][k]
  const float* scales;  // [m][k / 32]
  const float* sums;    // [m][k / group]
  float* dst;
  int64_t ldc;
};
inline constexpr int64_t kMostBlockRows = 4;
using BlockRowsFn = void (*)(const BlockRowsArgs& args) noexcept;

/// dst[r][c] = sum over k: x[r][k] * w[c][k] in float with the weights as decode gives them, with
/// FMA where there is one. The order of a sum depends on k alone.
struct BlockFloatArgs {
  BlockKernel kernel;
  const uint8_t* weights;  // first panel
  int64_t panel_bytes;
  int64_t k;
  int64_t n;
  int64_t m;
  const float* x;
  int64_t ldx;
  float* dst;
  int64_t ldc;
};
using BlockFloatFn = void (*)(const BlockFloatArgs& args) noexcept;

}  // namespace narrow::kernels
