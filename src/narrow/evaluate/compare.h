// SPDX-License-Identifier: Apache-2.0
// How far two models of the same task are apart, at the outputs and layer by layer. Values are
// matched by name; where the second (or first) model quantizes a value, its dequantized form is
// compared, so that the quantized model runs on integers exactly as in use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/data/dataset.h"
#include "narrow/graph/graph.h"

namespace narrow {

struct CompareOptions {
  int64_t batch = 0;
  int threads = 0;
  enum class Layers : uint8_t { none, quantized, all };
  /// quantized: values that at least one of the models quantizes. all: every common float value.
  Layers layers = Layers::quantized;
  std::vector<std::string> also;  // values compared besides, where both models have them
  Progress progress;
};

/// The reference is the first model.
struct ValueDifference {
  std::string value;
  std::string node;  // that produces it in the first model; empty for a graph input
  std::string op;
  int64_t elements = 0;
  double sqnr_db = 0;  // infinity if equal
  double cosine = 1;
  double mse = 0;
  double max_abs = 0;
};

struct Comparison {
  int64_t samples = 0;
  std::optional<double> agreement;  // percent; only where the first output is class scores
  double cosine = 1;                // over all outputs together
  double sqnr_db = 0;
  double max_abs = 0;
  bool identical = true;  // all outputs, bit for bit
  std::vector<ValueDifference> outputs;
  std::vector<ValueDifference> layers;  // in the order of the first graph
};

/// `a` is the reference. Throws invalid_argument when inputs or outputs do not match.
Comparison compare(const Graph& a, const Graph& b, const Dataset& data,
                   const CompareOptions& options = {});

/// The name under which `value` stands after quantization in this graph: the output of the
/// DequantizeLinear behind its QuantizeLinear; nullopt if the graph does not quantize it.
std::optional<std::string> dequantized_name(const Graph& graph, const std::string& value);

}  // namespace narrow
