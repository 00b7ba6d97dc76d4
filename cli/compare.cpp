// SPDX-License-Identifier: Apache-2.0
#include "narrow/evaluate/compare.h"

#include <memory>

#include "commands.h"
#include "model.h"
#include "narrow/report/results.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nExamples:\n"
    "  narrow compare float.onnx int8.onnx --data mnist:DIR,samples=500\n"
    "  narrow compare float.onnx int8.onnx --data images:photos --layers all --json\n";

struct CompareFlags {
  std::string first;
  std::string second;
  std::string data;
  std::string layers = "quantized";
  int64_t batch = 0;
};

CompareOptions::Layers layers_of(const std::string& word) {
  if (word == "none") return CompareOptions::Layers::none;
  return word == "all" ? CompareOptions::Layers::all : CompareOptions::Layers::quantized;
}

void run_compare(const CompareFlags& flags, Context& context) {
  const Graph first = load_model(flags.first);
  const Graph second = load_model(flags.second);
  const auto data = open_data(flags.data, first);
  CompareOptions options;
  options.layers = layers_of(flags.layers);
  options.batch = flags.batch;
  options.threads = context.thread_count();
  options.progress = make_progress();
  const Comparison comparison = compare(first, second, *data, options);
  context.print(to_json(comparison), to_text(comparison));
}

}  // namespace

void add_compare(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("compare", "Say how far two models are apart, layer by layer");
  auto flags = std::make_shared<CompareFlags>();
  add_model(*command, "first", flags->first, "The reference, as a rule the float model");
  add_model(*command, "second", flags->second, "The model that is judged");
  add_data(*command, flags->data, "Data to run both on")->required();
  add_choice(*command, "--layers", flags->layers, {"none", "quantized", "all"},
             "Values inside the models to compare (default quantized)");
  add_integer(*command, "--batch", flags->batch, 0, 65536, "Samples at once; 0: chosen");
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_compare(*flags, context); }; });
}

}  // namespace narrow::cli
