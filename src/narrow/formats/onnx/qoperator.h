// SPDX-License-Identifier: Apache-2.0
// Operators of other tools' quantized and optimised files (QOperator form, com.microsoft) become
// ONNX operators between DequantizeLinear and QuantizeLinear.
#pragma once

#include <span>

#include "narrow/formats/onnx/builder.h"
#include "narrow/formats/onnx/proto.h"

namespace narrow::onnx {

enum class ImportKind : uint8_t {
  qoperator,  // only with OnnxReadOptions::qoperator_to_qdq
  rename,     // always: narrow knows the operator under its ONNX name
};

struct ImportRow {
  const char* domain;
  const char* op;
  ImportKind kind;
  void (*edit)(ProtoNode&, GraphBuilder&);
};

/// The name of the constant as a scalar if it has one element in another shape, otherwise the name
/// itself: per_tensor parameters of QuantizeLinear have rank 0, other tools also write [1].
std::string as_scalar(const std::string& name, GraphBuilder& builder);

std::span<const ImportRow> import_rows();

/// Rewrites the node if a row asks for it; the upgrade rows see what comes out.
void import_node(ProtoNode& node, GraphBuilder& builder);

}  // namespace narrow::onnx
