// SPDX-License-Identifier: Apache-2.0
// The tables of graph/ops/, one per family; op_table.cpp collects them. To add an operator, add a
// row to its family's table; to add a family, a function here and a line in op_table.cpp.
#pragma once

#include <span>

#include "narrow/graph/op_table.h"

namespace narrow::ops {

std::span<const OpInfo> attention_ops();
std::span<const OpInfo> com_microsoft_ops();
std::span<const OpInfo> control_ops();
std::span<const OpInfo> conv_ops();
std::span<const OpInfo> cut_ops();
std::span<const OpInfo> detection_ops();
std::span<const OpInfo> elementwise_ops();
std::span<const OpInfo> gather_ops();
std::span<const OpInfo> matmul_ops();
std::span<const OpInfo> movement_ops();
std::span<const OpInfo> narrow_ops();
std::span<const OpInfo> normalization_ops();
std::span<const OpInfo> pool_ops();
std::span<const OpInfo> quantization_ops();
std::span<const OpInfo> reduction_ops();
std::span<const OpInfo> shape_ops();

}  // namespace narrow::ops
