// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "narrow/graph/op_table.h"

namespace narrow::ops {

/// The output shape of a Reshape node (data, shape), as far as it is known.
std::optional<SymbolicShape> reshaped(const InferContext& c);

}  // namespace narrow::ops
