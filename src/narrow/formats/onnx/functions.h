// SPDX-License-Identifier: Apache-2.0
// Model-local functions: every call is replaced with the function's nodes.
#pragma once

#include "narrow/formats/onnx/proto.h"

namespace narrow::onnx {

/// Inlines all calls, also in subgraphs and in functions. An operator that narrow knows itself is
/// no call. Throws corrupt_data on recursion and on models that grow out of bounds.
void inline_functions(ProtoModel& model);

}  // namespace narrow::onnx
