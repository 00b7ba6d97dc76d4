// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "narrow/graph/op_table.h"

namespace narrow::ops {

/// Fails unless scale and zero_point fit the data: per tensor, per axis (attribute axis), or
/// blocked (attributes axis and block_size).
void require_grid(const InferContext& c, size_t data, size_t scale, size_t zero_point);

}  // namespace narrow::ops
