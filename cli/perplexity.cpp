// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <memory>

#include "commands.h"
#include "llm.h"
#include "model.h"
#include "narrow/report/perplexity_report.h"
#include "text.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nMODEL is the folder of a Hugging Face model or a .gguf file. The second half of each chunk "
    "is\n"
    "scored, as llama.cpp does; with --stride every token in sliding windows, as papers do.\n"
    "\nExamples:\n"
    "  narrow perplexity ./llama --data text:wiki.test.raw\n"
    "  narrow perplexity q4.gguf --data text:wiki.test.raw --reference ./llama --chunks 50 --json\n"
    "  narrow perplexity ./llama --data text:wiki.test.raw --context 2048 --stride 2048\n";

struct PerplexityFlags {
  std::string model;
  std::string data;
  std::string reference;
  std::string compute = "integer";
  std::string cache;
  bool no_repack = false;
  int64_t context = 512;
  int64_t chunks = 0;
  int64_t stride = 0;
  int64_t batch_tokens = 2048;
};

void run_perplexity(const PerplexityFlags& flags, Context& context) {
  const std::string text = read_text_data(flags.data);
  const llm::LanguageModel model = llm::LanguageModel::open(flags.model);
  std::unique_ptr<llm::LanguageModel> reference;
  if (!flags.reference.empty()) {
    reference = std::make_unique<llm::LanguageModel>(llm::LanguageModel::open(flags.reference));
  }
  // A folder may lack a tokenizer that the other model's file has.
  const bool own = model.checkpoint().has_tokenizer() || !reference;
  const llm::Tokenizer tokenizer =
      own ? model.checkpoint().tokenizer() : reference->checkpoint().tokenizer();
  PerplexityReport report;
  report.data = flags.data;
  llm::PerplexityOptions& options = report.options;
  options.context = flags.context;
  options.chunks = flags.chunks;
  options.stride = flags.stride;
  options.windows = flags.stride > 0 ? llm::Windows::sliding : llm::Windows::halves;
  if (options.windows == llm::Windows::halves) options.bos = llm::chunk_bos(tokenizer);
  options.batch_tokens = flags.batch_tokens;
  options.threads = context.thread_count();
  options.activations = activations_of(flags.compute);
  options.cache = cache_of(flags.cache);
  options.repack = !flags.no_repack;
  const llm::MemoryPlan plan = llm::memory_plan(model.config(), options);
  const Json memory = say_memory(model.checkpoint(), plan, context);
  warn_context(model.config(), options.context);
  const std::vector<int32_t> ids = tokenizer.encode(text);
  const auto start = std::chrono::steady_clock::now();
  report.result = llm::perplexity(model, ids, options, reference.get(), make_progress());
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  report.seconds = time.count();
  Json j = json_of(report);
  if (options.cache != llm::CacheType::none) j["kv_cache"] = llm::to_string(options.cache);
  j["memory"] = memory;
  context.print(json_text(j), to_text(report));
}

}  // namespace

void add_perplexity(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "perplexity", "Measure how well a language model predicts a text, and against another one");
  auto flags = std::make_shared<PerplexityFlags>();
  add_model(*command, "model", flags->model, "The model");
  command->add_option("--data", flags->data, "The text")->type_name("text:FILE")->required();
  command->add_option("--reference", flags->reference, "Compare with this model, token by token")
      ->type_name("MODEL");
  add_integer(*command, "--context", flags->context, 4, 1 << 20, "Tokens of a chunk (default 512)");
  add_integer(*command, "--chunks", flags->chunks, 1, INT64_MAX, "At most so many chunks");
  add_integer(*command, "--stride", flags->stride, 1, 1 << 20,
              "Score every token in windows that begin so far apart");
  add_integer(*command, "--batch-tokens", flags->batch_tokens, 1, 1 << 20,
              "Chunks run together up to so many tokens (default 2048)");
  add_cache(
      *command, flags->cache,
      "Read keys and values from such a cache, and so count its rounding (default: no cache)");
  add_no_repack(*command, flags->no_repack);
  add_activations(*command, flags->compute);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_perplexity(*flags, context); }; });
}

}  // namespace narrow::cli
