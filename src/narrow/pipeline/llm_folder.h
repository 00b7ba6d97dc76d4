// SPDX-License-Identifier: Apache-2.0
// A language model as the folder of a Hugging Face model: config.json, model.safetensors with that
// side's names and order of rows, and the tokenizer's files, copied or written from a GGUF file's
// vocabulary.
//
//   LlmFolderJob job{.model = "llama.gguf", .output = "llama", .format = "bf16"};
//   WeightsReport report = run_llm_folder(job);
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "narrow/core/progress.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/report/weights_report.h"

namespace narrow {

struct LlmFolderJob {
  std::filesystem::path model;  // a .gguf file or the folder of a Hugging Face model
  /// Read in place of the files of `model`, whose name stays that of the job.
  std::optional<llm::Checkpoint> weights;
  std::filesystem::path output;  // a folder that is not there, or empty
  /// Of the matrices: f32 (then of all tensors), f16 or bf16; empty: float tensors keep their type,
  /// and weights in blocks become f32.
  std::string format;
  int threads = 0;  // 0: all CPUs of the affinity mask
  Progress progress;
};

/// The folder appears under its name when it is complete. A tensor at a time, rows in chunks.
/// Throws Error naming file and tensor: invalid_argument for a format that a folder does not have
/// or an output that is there, unsupported for what these files cannot express.
WeightsReport run_llm_folder(const LlmFolderJob& job);

}  // namespace narrow
