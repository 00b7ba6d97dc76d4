// SPDX-License-Identifier: Apache-2.0
#include "train_llm.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/pipeline/train_llm_arch.h"
#include "narrow/pipeline/train_llm_grids.h"
#include "narrow/pipeline/weight_source.h"
#include "narrow/train/networks.h"

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

void add_arch_flags(CLI::App& command, std::string& arch, std::string& tokenizer) {
  std::vector<std::string> names;
  for (const train::Network& network : train::networks()) names.emplace_back(network.name);
  names.emplace_back("llama(dim=N,layers=N,..)");
  const std::string type = fmt::format("{}", fmt::join(names, "|"));
  command
      .add_option_function<std::string>(
          "--arch",
          [&arch, names = std::move(names)](const std::string& text) {
            const bool known = std::find(names.begin(), names.end(), text) != names.end();
            if (!known && !is_language_arch(text)) {
              throw CLI::ValidationError("--arch", fmt::format("'{}' is not possible; {}", text,
                                                               did_you_mean(text, names)));
            }
            arch = text;
          },
          "A network to train from scratch; a language model as in "
          "'llama(dim=256,layers=8,heads=8,kv_heads=4,ff=768,context=512)'")
      ->type_name(type);
  command
      .add_option("--tokenizer", tokenizer,
                  "Of a language model from scratch: a model's folder, a .gguf file, or a "
                  "tokenizer.json")
      ->type_name("MODEL");
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
  const bool scratch = is_language_arch(job.arch);
  const bool model = scratch || (!job.model.empty() && is_language_model(job.model));
  if (!scratch && !job.tokenizer.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "--tokenizer is for language models from scratch, others have their own",
                "leave it out, or give --arch 'llama(..)'");
  }
  const auto is_text = [](const DataSpec& spec) { return spec.kind == "text"; };
  if (model != is_text(job.data) || (job.eval_data && model != is_text(*job.eval_data))) {
    throw Error(ErrorCode::invalid_argument,
                model ? "a language model learns from text" : "text is for language models",
                model ? "give --data text:FILE" : "give a folder of a model, or a .gguf file");
  }
  if (model && !job.qat.empty()) parse_llm_grids(job.qat);
}

}  // namespace narrow::cli
