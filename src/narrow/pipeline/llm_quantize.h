// SPDX-License-Identifier: Apache-2.0
// Quantizing a language model's weights into a GGUF file, and converting between float types. The
// model streams through: a tensor at a time, rows in chunks, so that memory does not grow with the
// model; and what is finished is noted beside the output, so that a run that was killed goes on.
//
//   LlmQuantizeJob job{.model = "llama/", .output = "llama.gguf", .format = "q4_k_m"};
//   WeightsReport report = run_llm_quantize(job);
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/progress.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/pipeline/llm_evaluate.h"
#include "narrow/ptq/mixtures.h"
#include "narrow/report/weights_report.h"

namespace narrow {

enum class WeightMethod : uint8_t {
  rtn,         // scales from the extremes
  mse,         // scales of the least square error
  importance,  // the same, columns weighted by the mean square of what meets them
};
const char* to_string(WeightMethod method);

struct LlmQuantizeJob {
  std::filesystem::path model;  // a .gguf file or the folder of a Hugging Face model
  /// Read in place of the files of `model`, whose name stays that of the job.
  std::optional<llm::Checkpoint> weights;
  std::filesystem::path output;  // .gguf
  /// A name of file_formats(); empty: every tensor keeps its type (a conversion of the file alone).
  std::string format;
  WeightMethod method = WeightMethod::mse;
  std::filesystem::path statistics;   // of method importance: an importance matrix, either form
  std::vector<TensorTypeRule> rules;  // later ones win
  bool requantize = false;            // allow a source that is quantized already
  uint64_t max_memory = 0;  // bytes that buffers and the mapped source may take; 0: no limit
  bool resume = false;      // go on with what a killed run of this job left
  int threads = 0;          // 0: all CPUs of the affinity mask
  /// Measures the output before it gets its name. Not with max_memory: both models run whole.
  std::optional<LlmEvaluationJob> evaluation;
  Progress progress;
};

/// The evaluation's gate failed: nothing stands under the output's name.
class WeightsBelowTarget : public Error {
 public:
  WeightsBelowTarget(std::string message, std::string hint, WeightsReport report);
  const WeightsReport& report() const { return *report_; }

 private:
  std::shared_ptr<const WeightsReport> report_;
};

/// The same job gives the same bytes for any number of threads, any max_memory, and whether or not
/// it was interrupted. Throws Error naming file and tensor: invalid_argument for combinations that
/// make no sense, numeric_failure for weights that are NaN or infinite, resource_exhausted when
/// max_memory is less than a row needs; WeightsBelowTarget.
WeightsReport run_llm_quantize(const LlmQuantizeJob& job);

/// "q4_k_m", any case. Throws invalid_argument with the nearest names.
const FileFormat& file_format(std::string_view name);
/// "blk.0.*=q6_k"; "float" for the type: as it is. Throws invalid_argument.
TensorTypeRule parse_tensor_rule(std::string_view text);
/// "1G", "512M", "65536". Throws invalid_argument.
uint64_t parse_memory(std::string_view text);

}  // namespace narrow
