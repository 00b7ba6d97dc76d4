// SPDX-License-Identifier: Apache-2.0
#include "train_llm.h"

#include "narrow/core/error.h"
#include "narrow/pipeline/train_llm_grids.h"
#include "narrow/pipeline/weight_source.h"

namespace narrow::cli {

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
