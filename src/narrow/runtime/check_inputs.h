// SPDX-License-Identifier: Apache-2.0
// Whether what a caller hands in fits the graph's inputs.
#pragma once

#include <span>

#include "narrow/core/tensor.h"
#include "narrow/graph/graph.h"

namespace narrow {

/// Number and dtypes: cheap, checked on every run. Throws invalid_argument.
void check_input_types(const Graph& graph, std::span<const Tensor> inputs);

/// Ranks, known dimensions, and that equal names of dimensions are equal sizes. Throws
/// invalid_argument.
void check_input_dims(const Graph& graph, std::span<const Dims> dims);

}  // namespace narrow
