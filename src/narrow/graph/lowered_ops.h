// SPDX-License-Identifier: Apache-2.0
// The integer operators of the domain "narrow" that lower_to_integer() writes and the runtime runs.
// Each equals a pattern of standard ONNX operators (its body); the integers are defined exactly:
//
//   acc  = sum over k of (q_x - z_x) * (q_w - z_w)  + bias          int32, exact
//   code = clamp(round_half_even(float(acc) * m) + z_y, qmin, qmax)
//   m    = float32(double(s_x) * double(s_w) / double(s_y))         per output channel
//
// bias is int32 with scale s_x * s_w and zero_point 0. The clamp happens in float before the
// conversion: min(float(acc) * m, qmax - z_y), then max with qmin - z_y. No FMA anywhere.
//
// Without y_scale the output is float32:  y = float(acc) * float32(double(s_x) * double(s_w)), then
// the activation's bounds in float (attributes `min`, `max`, absent when unbounded).
//
// Common inputs (scales are float32, zero_points have the dtype of the codes; all constants; an
// absent zero_point is 0). Common attributes of quantized outputs: qmin, qmax (int, default: the
// dtype's range): the codes' limits after a fused activation or narrow range.
//
// QConv     (x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale?, y_zero_point?, bias?)
//           x [N,C,spatial] 8 bits; w [M,C/group,kernel] int8/uint8/int4/uint4, w_scale [] or [M];
//           Conv's attributes (auto_pad resolved into pads). Padding is real 0, the code z_x.
// QConvAdd  (QConv's nine, other, other_scale, other_zero_point, conv_scale, conv_zero_point,
//           sum_scale, sum_zero_point): QConv to y_scale and y_zero_point, then QBinary Add of its
//           codes, read on the grid conv_scale, conv_zero_point, and `other`, of the same shape.
//           All codes written have one dtype; qmin and qmax are the convolution's, sum_qmin and
//           sum_qmax the sum's. A plan of the runtime, never part of a file.
// QConvLookup (QConv's nine, table): QConv, then QLookup of its codes; both dtypes are the same. A
//           plan of the runtime too.
// QGemm     (a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale?, y_zero_point?, bias?)
//           a [.., M, K]; b [K, N], or [N, K] with transB = 1; b_scale [] or [N]; bias [N] or
//           absent. Serves Gemm (transA 0, alpha 1, beta 1) and MatMul with a constant 2-D b. b may
//           also be an activation of rank >= 2 (attention): per_tensor, transB = 0, broadcast like
//           MatMul.
// QBinary   (a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point), attribute
//           `op` = "Add" | "Sub" | "Mul" | "Div"; numpy broadcasting. Add, Sub:
//           t = float(q_a - z_a) * float32(double(s_a)/s_y)  +-  float(q_b - z_b) *
//           float32(double(s_b)/s_y) Mul: float((q_a - z_a) * (q_b - z_b)) * float32(double(s_a) *
//           s_b / s_y) code = clamp(round_half_even(t) + z_y): products rounded, then the sum
//           rounded, then half-even.
// QConcat   (y_scale, y_zero_point, x1, x1_scale, x1_zero_point, x2, ...), attribute axis. Inputs
// with
//           the output's own grid are copied; others go through the 256-entry table of
//           requantize: clamp(rne(float(q - z_x) * float32(double(s_x)/s_y)) + z_y).
// QLookup   (x, table): y[i] = table[code], table of 256 entries in y's dtype, indexed by the code
// as
//           an unsigned byte. Any unary operator or chain between DQ and Q, requantization
//           included; made by quant/tables.h with portable functions.
// QAveragePool, QGlobalAveragePool (x, x_scale, x_zero_point, y_scale, y_zero_point)
//           acc = sum of (q_x - z_x) over the window, int32; count = elements counted (as
//           count_include_pad says); code = clamp(rne(float(acc) * float32(double(s_x)/(s_y *
//           count))) + z_y). QGlobalAveragePool also serves ReduceMean over the spatial axes
//           (attribute keepdims).
// WConv, WGemm (x float, w, w_scale, w_zero_point, bias float?): weight-only; Conv / Gemm (MatMul)
//           attributes; attribute block_size > 0: groups of that many values along the reduction
//           axis (for WGemm: K; w_scale has the shape of QuantParams per_group). Float
//           accumulation.
// DynamicQConv, DynamicQGemm (x float, w, w_scale, w_zero_point, bias float?): x is quantized at
// run
//           time to uint8 as DynamicQuantizeLinear does, attribute `granularity` = "per_tensor" |
//           "per_sample" (QConv: batch item; QGemm: row); then as QConv / QGemm with float output,
//           y = float(acc) * float32(double(s_x) * double(s_w)) + bias.
//
// HalfGemm  (a, b, bias?): a [.., M, K] float32 times a constant float16 or bfloat16 matrix b [K,
// N],
//           or [N, K] with transB = 1; bias float32 [N]. MatMul or Gemm of Cast(b).
// DecodeBlocks (w): rows of block records, uint8 [.., row_bytes], as float32 [.., columns];
//           attributes `type` (a block type of quant/blocks, "q4_k") and `columns`. The value is
//           what the codec's decode says. The one operator without a body in ONNX.
// DynamicQuantize (x): codes int8 [.., K] and scales float32 [.., ceil(K / block_size)] of float32
//           x [.., K], blocks of attribute `block_size` (32) along the last axis, the last one may
//           be short. amax is the largest |x| of the block by its bits (a NaN is larger than all);
//           scale = amax / 127, code = rne(clamp(x / scale, -127, 127)), and 0 wherever scale is 0,
//           infinite or NaN. DequantizeLinear(codes, scales, axis -1, block_size) is x again.
// BlockGemm (x, w): MatMul(DequantizeLinear(DynamicQuantize(x)), Transpose(DecodeBlocks(w))) with
//           block_size 32: x [.., K] float32, w uint8 [N, row_bytes], attributes type and columns =
//           K. With a the codes and s the scales of a row of x, and for each group g of weights
//           that share a scale (16 or 32 values; quant/blocks/block_parts.h) c its integers, d its
//           scale, o its offset:
//             S_g = sum of c * a,  A_g = sum of a      over the group: int32, exact
//             t   = S_g * d_g for the first group of a run of 32, fma(S_g, d_g, t) for a second;
//                   then, where the type has offsets, fma(A_g, o_g, t) for each group in order
//             y   = fma(t, s, y), runs in order, from y = +0
//           S_g and A_g as float (exact). fma rounds once, everything else too. So a result depends
//           on its row of x and its row of w alone.
// WBlockGemm (x, w): MatMul(x, Transpose(DecodeBlocks(w))) in float, any block type; attributes as
//           BlockGemm.
// Attention (q, k, v, mask?, past_key?, past_value?, nonpad_kv_seqlen?, k_scale?, v_scale?): ONNX's
//           Attention with k and v narrower than the float32 query. float16: what Cast to float32
//           in front of k and v says. int8: what DequantizeLinear (axis -1, attribute block_size)
//           of k [batch, heads, keys, width] with float32 k_scale [batch, heads, keys, blocks]
//           says, and of v likewise; no past keys then.
//
// Data movement and selection (MaxPool, Reshape, Flatten, Transpose, Concat of equal grids, Slice,
// Split, Gather, Squeeze, Unsqueeze, Pad with the zero_point, Resize nearest, Expand, DepthToSpace,
// SpaceToDepth, Identity, Relu/Clip as QLookup) keep their ONNX names and run on the codes.
#pragma once

namespace narrow::ops {
inline constexpr const char* kDomain = "narrow";
inline constexpr const char* kQConv = "QConv";
inline constexpr const char* kQConvAdd = "QConvAdd";
inline constexpr const char* kQConvLookup = "QConvLookup";
inline constexpr const char* kQGemm = "QGemm";
inline constexpr const char* kQBinary = "QBinary";
inline constexpr const char* kQConcat = "QConcat";
inline constexpr const char* kQLookup = "QLookup";
inline constexpr const char* kQAveragePool = "QAveragePool";
inline constexpr const char* kQGlobalAveragePool = "QGlobalAveragePool";
inline constexpr const char* kWConv = "WConv";
inline constexpr const char* kWGemm = "WGemm";
inline constexpr const char* kDynamicQConv = "DynamicQConv";
inline constexpr const char* kDynamicQGemm = "DynamicQGemm";
inline constexpr const char* kHalfGemm = "HalfGemm";
inline constexpr const char* kAttention = "Attention";
inline constexpr const char* kDecodeBlocks = "DecodeBlocks";
inline constexpr const char* kDynamicQuantize = "DynamicQuantize";
inline constexpr const char* kBlockGemm = "BlockGemm";
inline constexpr const char* kWBlockGemm = "WBlockGemm";
/// Values of DynamicQuantize with one scale, as BlockGemm has them.
inline constexpr int kActivationBlock = 32;
}  // namespace narrow::ops
