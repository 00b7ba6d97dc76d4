// SPDX-License-Identifier: Apache-2.0
// The whole job: read, clean up, measure the float model, calibrate, quantize, correct, write under
// a temporary name, read back, verify, and only then give the file its name.
//
//   QuantizeJob job{.model = "m.onnx", .output = "q.onnx", .recipe = load_recipe("r.yaml")};
//   QuantizeReport report = run_quantize(job);
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/progress.h"
#include "narrow/pipeline/recipe.h"
#include "narrow/report/quantize_report.h"

namespace narrow {

struct QuantizeJob {
  std::filesystem::path model;
  std::filesystem::path output;  // empty: everything but the file (a dry run)
  Recipe recipe;
  int threads = 0;                           // 0: all CPUs of the affinity mask
  std::filesystem::path statistics;          // read instead of calibrating, if the file is there
  std::filesystem::path save_statistics;     // written after calibration
  bool measure_latency = false;              // float against quantized, batch 1
  std::vector<std::string> disabled_passes;  // of the float clean-up
  /// The command as the user typed it, for the rerun that a refusal suggests; may be empty.
  std::string command;
  Progress progress;
  /// Told before the long work begins: what will be quantized, sizes, samples.
  std::function<void(const std::string& line)> preflight;
};

/// The gate failed: nothing stands under the output's name. what() names the worst layers, hint()
/// holds the rerun with its measured result; the report has both as data.
class QualityBelowTarget : public Error {
 public:
  QualityBelowTarget(std::string message, std::string hint, QuantizeReport report);
  const QuantizeReport& report() const { return *report_; }

 private:
  std::shared_ptr<const QuantizeReport> report_;
};

/// Throws QualityBelowTarget, or Error naming file, node or tensor. The same job gives the same
/// file, byte for byte, for any number of threads.
QuantizeReport run_quantize(const QuantizeJob& job);

}  // namespace narrow
