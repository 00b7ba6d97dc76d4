// SPDX-License-Identifier: Apache-2.0
#include "train_llm.h"

#include "narrow/core/error.h"
#include "narrow/pipeline/train_llm_grids.h"
#include "narrow/pipeline/weight_source.h"

namespace narrow::cli {

void add_adapter_flags(CLI::App& command, AdapterFlags& flags) {
  command.add_option("--freeze", flags.freeze, "Parameters that stay as they are")
      ->type_name("GLOB");
  command
      .add_option("--lora", flags.lora,
                  "Train low-rank adapters of weights alone, as in rank=8,alpha=16,layers=GLOB; "
                  "they are added to the weights, on their grid with --qat")
      ->type_name("SPEC");
  command
      .add_option("--lora-output", flags.output,
                  "Keep the adapters in a folder of their own, as PEFT reads it")
      ->type_name("FOLDER");
  command.add_option("--lora-input", flags.input, "Begin with the adapters of such a folder")
      ->type_name("FOLDER");
}

void set_adapter_options(const AdapterFlags& flags, TrainJob& job) {
  job.freeze = flags.freeze;
  if (!flags.lora.empty()) job.adapters = parse_adapters(flags.lora);
  job.adapters.input = flags.input;
  job.adapters.output = flags.output;
}

void set_llm_defaults(const CLI::App& command, train::TrainOptions& options) {
  constexpr int64_t kSequences = 4;
  if (command.count("--epochs") == 0) options.epochs = 1;
  if (command.count("--batch") == 0) options.batch = kSequences;
  if (command.count("--temperature") == 0) options.temperature = 1;
}

void check_llm_training(const TrainJob& job) {
  const bool model = !job.model.empty() && is_language_model(job.model);
  const auto is_text = [](const DataSpec& spec) { return spec.kind == "text"; };
  if (model != is_text(job.data) || (job.eval_data && model != is_text(*job.eval_data))) {
    throw Error(ErrorCode::invalid_argument,
                model ? "a language model learns from text" : "text is for language models",
                model ? "give --data text:FILE" : "give a folder of a model, or a .gguf file");
  }
  if (model && !job.qat.empty()) parse_llm_grids(job.qat);
}

}  // namespace narrow::cli
