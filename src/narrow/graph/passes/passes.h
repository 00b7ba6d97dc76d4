// SPDX-License-Identifier: Apache-2.0
// The passes by name; each returns the number of changes it made. Rows in graph/pass.cpp.
#pragma once

#include "narrow/graph/pass.h"

namespace narrow {

/// Identity, inference Dropout, casts to the same type, and whatever else changes nothing: reshapes
/// to the same shape, empty pads, windows of one element, factors of 1, ... Two transposes in a row
/// become one, also around a softmax, which turns its axis.
int64_t eliminate_identities(Graph& graph, const PassContext& context);
/// Nodes with constant inputs, run by context.evaluate. DequantizeLinear stays: folding it would
/// turn codes into floats.
int64_t fold_constants(Graph& graph, const PassContext& context);
/// BatchNormalization, and Mul or Add by per-channel constants, into the Conv, ConvTranspose or
/// Gemm before them.
int64_t fold_batch_norm(Graph& graph, const PassContext& context);
/// Constant zero pads into the Conv, MaxPool-free pool or AveragePool behind them, where that is
/// the same function.
int64_t fuse_pads(Graph& graph, const PassContext& context);
/// A product of a matrix with constant weights and the bias added behind it into one Gemm.
int64_t fuse_matmul_bias(Graph& graph, const PassContext& context);
/// Nodes that compute the same from the same inputs; quantization stays as it was written.
int64_t eliminate_common(Graph& graph, const PassContext& context);
int64_t eliminate_dead(Graph& graph, const PassContext& context);

/// Casts of 16-bit matrices to float32 into the operators behind them, which read them as they are;
/// before constants are folded. A plan of the runtime like the next two.
int64_t absorb_casts(Graph& graph, const PassContext& context);
/// Keys and values in float16 or int8 into the Attention behind what widens them, which becomes
/// narrow.Attention. Needs inferred shapes.
int64_t absorb_cache(Graph& graph, const PassContext& context);
/// Weights in blocks into the operators behind their DecodeBlocks: products become
/// narrow.BlockGemm or narrow.WBlockGemm, an embedding is looked up as it is stored. A plan of the
/// runtime too. Needs inferred shapes.
int64_t absorb_blocks(Graph& graph, const PassContext& context);
/// Quantizes what meets weights in blocks, 32 values at a time, at run time: DynamicQuantize and
/// DequantizeLinear in front of MatMul(x, Transpose(DecodeBlocks(w))). On request: it changes
/// results.
int64_t quantize_activations(Graph& graph, const PassContext& context);
/// Dynamically quantized products of one input as one product and a Split. A plan of the runtime,
/// after lowering; it has no row.
int64_t merge_products(Graph& graph, const PassContext& context);
/// Quantized convolutions with what follows them: narrow.QConvAdd with a sum, narrow.QConvLookup
/// with a table. A plan of the runtime, after lowering; it has no row. Needs inferred shapes.
int64_t fuse_followers(Graph& graph, const PassContext& context);
/// Reshapes, transposes and picks that together take every s-th channel of an image as one Slice. A
/// plan of the runtime; it has no row. Needs inferred shapes.
int64_t slice_channels(Graph& graph, const PassContext& context);
/// Float convolutions and products with the residual addition and activation behind them; a plan of
/// the runtime, never part of a file, so it has no row. Needs inferred shapes.
int64_t fuse_activations(Graph& graph, const PassContext& context);

}  // namespace narrow
