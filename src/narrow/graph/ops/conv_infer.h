// SPDX-License-Identifier: Apache-2.0
// Inference shared by the convolutions, pools and matrix products of every domain.
#pragma once

#include <string_view>

#include "narrow/graph/conv_shape.h"
#include "narrow/graph/op_table.h"

namespace narrow::ops {

/// Output 0 of a convolution of input 0 with the weight at `weight_input`. A bias past the inputs
/// is absent.
void infer_conv(InferContext& c, size_t weight_input, size_t bias_input, DType output);
/// Output 0 of MatMul of two inputs.
void infer_matmul(InferContext& c, size_t a, size_t b, DType output);
/// Output 0 of Gemm with attributes transA, transB; the input `bias` broadcasts to it.
void infer_gemm(InferContext& c, size_t a, size_t b, size_t bias, DType output);
/// Output 0 of a pooling window over input 0.
void infer_pool(InferContext& c, DType output);
/// Output 0 with every spatial extent 1.
void infer_global_pool(InferContext& c, DType output, bool channels_last = false);

/// The output extent along a spatial axis is the input's, whatever that is.
bool keeps_extent(const Node& node, const ConvGeometry& g, size_t axis);
/// Fails unless the input, where present, is a vector of `channels`.
void require_channel_vector(const InferContext& c, size_t input, const Dim& channels,
                            std::string_view what);

}  // namespace narrow::ops
