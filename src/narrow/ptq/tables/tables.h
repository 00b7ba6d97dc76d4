// SPDX-License-Identifier: Apache-2.0
// Tables whose rows are gathered (embeddings), in 8 bits with one scale for each row. Codes and
// scale of the wanted rows are gathered and multiplied: a DequantizeLinear before the Gather would
// make the whole table real for a few rows.
#pragma once

#include <cstdint>
#include <string>

#include "narrow/core/tensor.h"
#include "narrow/graph/graph.h"
#include "narrow/quant/error_measures.h"

namespace narrow {

struct QuantizedTable {
  uint64_t bytes = 0;  // codes and scales
  ErrorMeasures error;
};

/// Rewrites every Gather of rows of the initializer `table`, whose values are those of `x` [rows,
/// columns]. Throws numeric_failure for NaN and inf, internal where something else uses the table.
QuantizedTable quantize_table(Graph& graph, const std::string& table, const Tensor& x);

}  // namespace narrow
