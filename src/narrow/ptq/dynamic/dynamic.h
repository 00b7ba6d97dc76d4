// SPDX-License-Identifier: Apache-2.0
// Dynamic quantization in standard ONNX operators: activations get their grid at run time.
#pragma once

#include "narrow/graph/graph.h"
#include "narrow/graph/qdq.h"
#include "narrow/ptq/assign.h"

namespace narrow {

/// Rewrites every layer of the assignment:
///   DynamicQuantizeLinear -> ConvInteger | MatMulInteger -> Cast -> Mul(s_x * s_w) -> Add(bias)
/// Layers that read the same value share its DynamicQuantizeLinear. Weights are stored in 8 bits.
/// The result keeps the layer's value name.
void write_dynamic(Graph& graph, const Assignment& assignment, const QdqPlan& plan);

}  // namespace narrow
