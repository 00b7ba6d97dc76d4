// SPDX-License-Identifier: Apache-2.0
// A language model as an ONNX file of standard operators: its graph with inputs and outputs as
// other programs expect them (llm/architectures/build.h), its weights float or quantized by the
// same assignment and the same rewriting as other models' (ptq/), its config and tokenizer in the
// metadata.
//
//   LlmOnnxJob job{.model = "llama/", .output = "llama.onnx", .format = "w4g32"};
//   WeightsReport report = run_llm_onnx(job);
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/pipeline/llm_quantize.h"
#include "narrow/ptq/options.h"
#include "narrow/report/weights_report.h"

namespace narrow {

/// What the products of a language model become in an ONNX file.
struct OnnxWeightFormat {
  const char* name;
  const char* summary;
  Mode mode = Mode::weight_only;
  int bits = 8;
  int64_t group_size = 0;  // 0: a scale for each output channel
};
std::span<const OnnxWeightFormat> onnx_weight_formats();
/// nullptr where there is none of this name.
const OnnxWeightFormat* find_onnx_weight_format(std::string_view name);

struct LlmOnnxJob {
  std::filesystem::path model;  // a .gguf file or the folder of a Hugging Face model
  /// Read in place of the files of `model`, whose name stays that of the job.
  std::optional<llm::Checkpoint> weights;
  std::filesystem::path output;  // .onnx
  /// A name of onnx_weight_formats(), or f32, f16, bf16; empty: float tensors keep their type, and
  /// weights in blocks become f32.
  std::string format;
  WeightMethod method = WeightMethod::mse;  // not importance
  std::vector<std::string> keep_float;      // globs on names of tensors
  /// Allow a source that is quantized already. Q4_0 into w4g32 and Q8_0 into w8g32 keep their
  /// codes (in larger groups where their blocks have one scale).
  bool requantize = false;
  int opset = 0;    // 0: the lowest that expresses the graph
  int threads = 0;  // 0: all CPUs of the affinity mask
  Progress progress;
};

/// Memory holds what is written and one tensor as float32. Throws Error naming file and tensor.
WeightsReport run_llm_onnx(const LlmOnnxJob& job);

}  // namespace narrow
