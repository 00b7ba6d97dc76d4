// SPDX-License-Identifier: Apache-2.0
// What the versions of ONNX admit: IR versions by opset, element types by operator and opset.
#pragma once

#include <cstdint>

#include "narrow/formats/onnx/exporter.h"
#include "narrow/formats/onnx/proto.h"

namespace narrow::onnx {

/// The IR version that came with the first release of an opset: the lowest that may hold it.
int64_t ir_version_of(int64_t opset);

/// The lowest opset whose schema admits the types of the node's inputs and outputs. Throws
/// unsupported where no opset does.
int64_t opset_of_types(const ProtoNode& node, const GraphExporter& graph);

}  // namespace narrow::onnx
