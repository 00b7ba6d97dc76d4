// SPDX-License-Identifier: Apache-2.0
// What quantizing (or converting) a language model's weights did. Plain data: pipeline/ fills it,
// frontends show it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "narrow/core/shape.h"
#include "narrow/report/perplexity_report.h"
#include "narrow/report/quantize_report.h"

namespace narrow {

struct WeightReport {
  std::string name;
  Dims dims;
  std::string source_type;  // "BF16"
  std::string type;         // "Q4_K"
  std::string wanted;       // where the type is a fall-back
  std::string reason;       // why not the format's own type; may be empty
  uint64_t bytes = 0;
  bool importance = false;  // the encoder knew which columns matter
  /// Root of the mean square error, relative to that of the weights; 0 where bytes were copied.
  double relative_rmse = 0;
};

struct WeightTypeTotal {
  std::string type;
  int64_t tensors = 0;
  int64_t elements = 0;
  uint64_t bytes = 0;
};

struct WeightsReport {
  std::string model;
  std::string output;  // empty: refused
  std::string architecture;
  std::string format;  // "q4_k_m"; "as it is"
  std::string method;  // "rtn", "mse", "importance"; empty: nothing was quantized
  std::string statistics;

  uint64_t source_bytes = 0;  // of the files
  uint64_t output_bytes = 0;
  int64_t elements = 0;
  double nominal_bits = 0;   // mean bits of a code
  double stored_bits = 0;    // bits of the tensors' bytes for each weight
  double relative_rmse = 0;  // of all quantized tensors together

  std::vector<WeightTypeTotal> types;          // largest first
  std::vector<WeightReport> tensors;           // in the file's order
  int64_t resumed = 0;                         // tensors that an earlier run had written
  std::optional<PerplexityReport> evaluation;  // of the output, the source as its reference
  std::string refusal;                         // why the gate failed; empty: it did not
  std::vector<std::string> notes;
  std::vector<StageTime> stages;
  uint64_t peak_rss_bytes = 0;
};

std::string to_json(const WeightsReport& report);
/// Totals, types, the worst tensors, what fell back. `max_tensors` rows at most per list.
std::string to_text(const WeightsReport& report, int max_tensors = 5);

}  // namespace narrow
