// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <memory>

#include "commands.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/formats/gguf/importance.h"
#include "narrow/llm/importance.h"
#include "narrow/llm/perplexity.h"
#include "narrow/pipeline/ranks.h"
#include "text.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nMODEL is the folder of a Hugging Face model or a .gguf file. The statistics are the mean\n"
    "squares of what meets each weight matrix, as llama.cpp's importance matrix: a file that\n"
    "ends in .dat has its older form. narrow quantize takes them as --statistics.\n"
    "\nExamples:\n"
    "  narrow calibrate ./llama --data text:calibration.txt -o stats.gguf\n"
    "  narrow calibrate ./llama --data text:big.txt -o stats.gguf --resume\n"
    "  narrow calibrate ./llama --data text:code.txt -o both.gguf --merge stats.gguf\n";

struct CalibrateFlags {
  std::string model;
  std::string data;
  std::string output;
  std::vector<std::string> merge;
  int64_t context = 512;
  int64_t chunks = 0;
  bool resume = false;
};

/// What an earlier run left, if it was over the same text.
ImportanceFile started(const CalibrateFlags& flags, const std::string& dataset) {
  std::error_code ignored;
  if (!flags.resume || !std::filesystem::exists(flags.output, ignored)) return {};
  ImportanceFile file = read_importance(flags.output);
  if (file.datasets.size() != 1 || file.datasets.front() != dataset) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: these statistics are not of {} alone", flags.output, dataset),
                "--resume goes on with the same --data; --merge adds other statistics");
  }
  return file;
}

void run_calibrate(const CalibrateFlags& flags, Context& context) {
  check_output_path(flags.output);
  const std::string text = read_text_data(flags.data);
  std::vector<ImportanceFile> others;
  for (const std::string& path : flags.merge) others.push_back(read_importance(path));
  const std::string dataset = flags.data.substr(std::string("text:").size());
  ImportanceFile statistics = started(flags, dataset);
  const uint32_t before = statistics.chunk_count;
  const auto ranks = join_ranks();
  const bool first = ranks == nullptr || ranks->first();
  if (ranks != nullptr && flags.resume) {
    throw Error(ErrorCode::invalid_argument, "--resume is for one process",
                "collect anew with several processes, or resume with one");
  }
  const llm::LanguageModel model = llm::LanguageModel::open(flags.model);
  const llm::Tokenizer tokenizer = model.checkpoint().tokenizer();
  const bool dat = std::filesystem::path(flags.output).extension() == ".dat";
  const auto form = dat ? ImportanceForm::dat : ImportanceForm::gguf;
  statistics.datasets = {dataset};
  llm::ImportanceOptions options;
  options.context = flags.context;
  options.chunks = flags.chunks;
  options.bos = llm::chunk_bos(tokenizer);
  options.threads = context.thread_count();
  // What other files bring is added last: --resume must find this text alone.
  if (others.empty() && ranks == nullptr) {
    options.save = [&](const ImportanceFile& s) { write_importance(s, flags.output, form); };
  }
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int32_t> ids = tokenizer.encode(text);
  std::span<const int32_t> own = ids;
  if (ranks != nullptr) own = own_chunks(ids, flags.context, flags.chunks, *ranks);
  llm::collect_importance(model, own, options, statistics, first ? make_progress() : Progress());
  if (ranks != nullptr) merge_over_ranks(statistics, *ranks);
  if (!first) return;
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  const uint32_t read = statistics.chunk_count - before;
  for (const ImportanceFile& other : others) llm::merge_importance(statistics, other);
  write_importance(statistics, flags.output, form);
  Json j;
  j["output"] = flags.output;
  j["matrices"] = statistics.entries.size();
  j["chunks"] = statistics.chunk_count;
  j["resumed_chunks"] = before;
  j["context"] = flags.context;
  j["datasets"] = statistics.datasets;
  j["seconds"] = json_number(time.count());
  context.print(
      json_text(j),
      fmt::format("{}: {} matrices, {} chunks of {} tokens, {:.1f} s, {:.0f} tokens/s\n",
                  flags.output, statistics.entries.size(), statistics.chunk_count, flags.context,
                  time.count(),
                  static_cast<double>(read) * static_cast<double>(flags.context) / time.count()));
}

}  // namespace

void add_calibrate(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("calibrate", "Collect what meets the weights of a language model");
  auto flags = std::make_shared<CalibrateFlags>();
  add_model(*command, "model", flags->model, "The model");
  command->add_option("--data", flags->data, "The text")->type_name("text:FILE")->required();
  command->add_option("-o,--output", flags->output, "The statistics to write")
      ->type_name("FILE")
      ->required();
  add_integer(*command, "--context", flags->context, 4, 1 << 20, "Tokens of a chunk (default 512)");
  add_integer(*command, "--chunks", flags->chunks, 1, INT64_MAX, "At most so many chunks");
  command->add_flag("--resume", flags->resume, "Go on with the statistics that the output holds");
  command->add_option("--merge", flags->merge, "Add the statistics of other files")
      ->type_name("FILE")
      ->expected(1, -1);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_calibrate(*flags, context); }; });
}

}  // namespace narrow::cli
