// SPDX-License-Identifier: Apache-2.0
// What `train` does otherwise for language models.
#pragma once

#include <string>
#include <vector>

#include "context.h"
#include "narrow/pipeline/train.h"

namespace narrow::cli {

/// --freeze, --lora, --lora-input, --lora-output.
struct AdapterFlags {
  std::vector<std::string> freeze;
  std::string lora;
  std::string input;
  std::string output;
};
void add_adapter_flags(CLI::App& command, AdapterFlags& flags);
void set_adapter_options(const AdapterFlags& flags, TrainJob& job);

/// --arch, --tokenizer.
void add_arch_flags(CLI::App& command, std::string& arch, std::string& tokenizer);

/// Options that were not given, for text: 1 epoch, 4 sequences a batch, a temperature of 1, a
/// learning rate that falls in half a wave.
void set_llm_defaults(const CLI::App& command, train::TrainOptions& options);

/// Throws invalid_argument where model, data and grids do not belong together.
void check_llm_training(const TrainJob& job);

}  // namespace narrow::cli
