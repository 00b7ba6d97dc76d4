// SPDX-License-Identifier: Apache-2.0
// What a quantization did, cost and gained. Plain data: pipeline/ fills it, frontends show it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "narrow/evaluate/compare.h"
#include "narrow/evaluate/evaluate.h"

namespace narrow {

struct QuantizedLayer {
  std::string node;
  std::string op;
  std::string weights;      // "int8 symmetric per_axis(axis 0)"; empty: not quantized
  std::string activations;  // of its data input; empty: float
  int64_t weight_elements = 0;
  double weight_sqnr_db = 0;  // of the codes against the float weights; infinity if none
  double output_sqnr_db = 0;  // of its (dequantized) output against the float model; NaN: unknown
};

struct FloatLayer {
  std::string node;
  std::string op;
  std::string reason;
};

struct StageTime {
  std::string stage;
  double seconds = 0;
};

struct PassSummary {
  std::string name;
  int64_t changes = 0;
};

/// Quantized against float on the evaluation data.
struct Verification {
  std::string data;  // "mnist:DIR,split=test", "hold-out of mnist:...", "random inputs"
  int64_t samples = 0;
  bool labelled = false;
  Metric metric = Metric::agreement;  // what the gate looks at: top1, agreement or cosine
  double float_value = 0;             // 100 for agreement, 1 for cosine
  double quantized_value = 0;
  std::optional<double> agreement;  // percent
  double cosine = 1;
  double sqnr_db = 0;
  double max_abs = 0;
  /// float_value - quantized_value, in points (percent metrics).
  double drop() const { return float_value - quantized_value; }
};

struct LatencyChange {
  int64_t batch = 1;
  int threads = 1;
  double float_us = 0;
  double quantized_us = 0;
};

/// A gate that failed and the cheapest cure that was found.
struct GateRefusal {
  std::string reason;                    // "top1 fell by 1.20 points, 0.50 allowed"
  std::vector<std::string> keep_float;   // empty: no cure found
  std::optional<Verification> measured;  // with keep_float applied
  std::string command;                   // the exact rerun
};

struct QuantizeReport {
  std::string model;
  std::string output;  // empty: not written (dry run, or refused)
  std::string recipe;  // canonical YAML of what was done
  Verification verification;
  bool reloaded_identical = false;  // the file read back gave the in-memory model's bits
  std::optional<LatencyChange> latency;

  uint64_t float_bytes = 0;
  uint64_t quantized_bytes = 0;
  int opset = 0;
  double integer_mac_fraction = 0;
  int64_t integer_macs = 0;
  int64_t total_macs = 0;

  int64_t calibration_samples = 0;
  std::string data_fingerprint;

  std::vector<QuantizedLayer> layers;  // in graph order
  std::vector<FloatLayer> kept_float;  // weighted and integer-capable operators that stay float
  std::vector<PassSummary> passes;     // that changed something
  std::vector<std::string> notes;      // everything a user should not have to guess
  std::vector<StageTime> stages;
  uint64_t peak_rss_bytes = 0;
  std::optional<GateRefusal> refusal;
};

std::string to_json(const QuantizeReport& report);
/// The summary table, worst layers, what stayed float, notes. `max_layers` rows at most per list.
std::string to_text(const QuantizeReport& report, int max_layers = 5);

}  // namespace narrow
