// SPDX-License-Identifier: Apache-2.0
#include "narrow/evaluate/bench.h"

#include <fmt/format.h>

#include <memory>

#include "commands.h"
#include "inputs.h"
#include "llm.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/evaluate/streams.h"
#include "narrow/pipeline/weight_source.h"
#include "narrow/report/results.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nA run goes from the model's inputs to its outputs: quantizing the one and dequantizing the\n"
    "other are part of the time, weights stay in their few bits.\n"
    "\nStreams share one copy of the weights and have their own activations. Each runs with\n"
    "threads / K threads, one at least: all together use as many as --threads says, or K.\n"
    "\nExamples:\n"
    "  narrow bench model.onnx\n"
    "  narrow bench model.onnx --batch 32 --threads 1 --json\n"
    "  narrow bench model.onnx --profile\n"
    "  narrow bench model.onnx --streams 4 --seconds 5\n"
    "  narrow bench q4.gguf --prompt-tokens 256 --new-tokens 64 --threads 2\n";

struct BenchFlags {
  std::string model;
  std::vector<std::string> inputs;
  std::string compute;
  int64_t batch = 0;
  int64_t warmup = 5;
  int64_t runs = 0;
  int64_t streams = 0;  // 0: single runs
  int64_t seed = 1;
  double seconds = 1;
  bool profile = false;
  LlmBenchFlags llm;
};

void say_oversubscribed(const StreamsResult& r) {
  write_stderr(
      fmt::format("note: {} streams of {} thread{} take turns on {} CPU{}: their times "
                  "contain waiting",
                  r.streams.size(), r.threads_each, r.threads_each == 1 ? "" : "s", r.cpus,
                  r.cpus == 1 ? "" : "s"));
}

void run_bench(const BenchFlags& flags, const CLI::App& command, Context& context) {
  if (is_language_model(flags.model)) {
    refuse_flags("bench",
                 given_flags(command, {"--batch", "--seconds", "--runs", "--warmup", "--input",
                                       "--profile", "--streams"}),
                 "ONNX models");
    LlmBenchFlags llm = flags.llm;
    llm.model = flags.model;
    llm.compute = flags.compute;
    llm.seed = flags.seed;
    return bench_language_model(llm, context);
  }
  refuse_flags("bench",
               given_flags(command, {"--prompt-tokens", "--new-tokens", "--rounds", "--kv-cache",
                                     "--no-repack"}),
               "language models");
  const Graph graph = load_model(flags.model);
  BenchOptions options;
  const int64_t fixed = fixed_batch(graph);
  options.batch = flags.batch > 0 ? flags.batch : fixed > 0 ? fixed : 1;
  options.threads = context.thread_count();
  options.seconds = flags.seconds;
  options.warmup = flags.warmup;
  options.seed = static_cast<uint64_t>(flags.seed);
  options.profile = flags.profile;
  options.session = session_options(context, flags.compute);
  options.progress = make_progress();
  if (flags.runs > 0) {
    options.min_runs = flags.runs;
    options.max_runs = flags.runs;
  }
  const std::map<std::string, Tensor> inputs =
      flags.inputs.empty() ? random_inputs(graph, options.batch, options.seed)
                           : read_inputs(flags.inputs, graph);
  if (flags.streams > 0) {
    const StreamsResult result =
        bench_streams(graph, inputs, static_cast<int>(flags.streams), options);
    if (result.oversubscribed()) say_oversubscribed(result);
    context.print(to_json(result), to_text(result));
    return;
  }
  const BenchResult result = bench(graph, inputs, options);
  context.print(to_json(result), to_text(result));
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("bench", "Measure how fast a model runs");
  auto flags = std::make_shared<BenchFlags>();
  add_model(*command, "model", flags->model, "The model");
  CLI::Option* batch = add_integer(*command, "--batch", flags->batch, 1, 65536,
                                   "Samples at once (default: the model's own, else 1)");
  add_number(*command, "--seconds", flags->seconds, 0, 3600,
             "Time to spend on timed runs (default 1)");
  add_integer(*command, "--runs", flags->runs, 1, 10000000, "Exactly this many timed runs");
  add_integer(*command, "--warmup", flags->warmup, 0, 1000000, "Untimed runs before (default 5)");
  add_integer(*command, "--seed", flags->seed, 0, INT64_MAX, "Of the random inputs (default 1)");
  command->add_option("--input", flags->inputs, "Inputs from files instead, as of narrow run")
      ->type_name("[NAME=]FILE")
      ->expected(1, -1)
      ->excludes(batch);
  CLI::Option* streams =
      add_integer(*command, "--streams", flags->streams, 1, 1024,
                  "Samples a second with this many runs at a time, each in a thread of its own");
  command
      ->add_flag("--profile", flags->profile,
                 "Add each node's time, GOPS, GB/s and what of the machine's peak that is")
      ->excludes(streams);
  add_integer(*command, "--prompt-tokens", flags->llm.prompt_tokens, 1, 1 << 24,
              "Language models: tokens of the prompt (default 256)");
  add_integer(*command, "--new-tokens", flags->llm.new_tokens, 1, 1 << 24,
              "Language models: tokens to make after it (default 64)");
  add_integer(*command, "--rounds", flags->llm.rounds, 1, 1000,
              "Language models: how often, the median counts (default 3)");
  add_cache(*command, flags->llm.cache);
  add_no_repack(*command, flags->llm.no_repack);
  add_compute(*command, flags->compute);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback([flags, command, &context] {
    context.run = [flags, command, &context] { run_bench(*flags, *command, context); };
  });
}

}  // namespace narrow::cli
