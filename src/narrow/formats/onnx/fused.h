// SPDX-License-Identifier: Apache-2.0
// Operators that onnxruntime fuses when it saves an optimised float model, taken apart again.
#pragma once

#include "narrow/formats/onnx/builder.h"
#include "narrow/formats/onnx/proto.h"

namespace narrow::onnx {

void fused_conv(ProtoNode& node, GraphBuilder& builder);
void fused_gemm(ProtoNode& node, GraphBuilder& builder);
void fused_mat_mul(ProtoNode& node, GraphBuilder& builder);
void gelu(ProtoNode& node, GraphBuilder& builder);
void quick_gelu(ProtoNode& node, GraphBuilder& builder);

}  // namespace narrow::onnx
