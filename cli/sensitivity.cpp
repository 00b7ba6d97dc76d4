// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/sensitivity.h"

#include <memory>

#include "commands.h"
#include "model.h"
#include "narrow/core/file.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nExamples:\n"
    "  narrow sensitivity cnn.onnx --data mnist:DIR --by bits -o bits.svg\n"
    "  narrow sensitivity cnn.onnx --data mnist:DIR --by sparsity --levels 0.5,0.8,0.9 --json\n"
    "  narrow sensitivity detector.onnx --data images:photos,labels=none --layers 'backbone*'\n";

struct SensitivityFlags {
  std::string model;
  std::string data;
  std::string by = "bits";
  std::string output;
  std::vector<double> levels;
  std::vector<std::string> layers;
  int64_t samples = 1000;
  int64_t seed = 1;
};

void run_sensitivity_command(const SensitivityFlags& flags, Context& context) {
  if (!flags.output.empty()) check_output_path(flags.output);
  SensitivityJob job;
  job.model = flags.model;
  job.data = parse_data_spec(flags.data);
  job.by = flags.by == "bits" ? SensitivityBy::bits : SensitivityBy::sparsity;
  job.levels = flags.levels;
  job.layers = flags.layers;
  job.samples = flags.samples;
  job.seed = static_cast<uint64_t>(flags.seed);
  job.threads = context.thread_count();
  job.progress = make_progress();
  const SensitivityReport report = run_sensitivity(job);
  if (!flags.output.empty()) write_text(flags.output, to_svg(report));
  context.print(to_json(report), to_text(report));
}

}  // namespace

void add_sensitivity(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("sensitivity", "Say which layers suffer from few bits, or from zeros");
  auto flags = std::make_shared<SensitivityFlags>();
  add_model(*command, "model", flags->model, "The float model");
  add_data(*command, flags->data, "Data to judge on; labels are not needed")->required();
  add_choice(*command, "--by", flags->by, {"bits", "sparsity"}, "What is scanned (default bits)");
  command->add_option("-o,--output", flags->output, "A picture of the scan")->type_name("SVG");
  command
      ->add_option("--levels", flags->levels,
                   "Bits, or shares of zeros (default 8,6,5,4,3,2; 0.3 to 0.95)")
      ->delimiter(',')
      ->type_name("X,..");
  command->add_option("--layers", flags->layers, "Only these layers")
      ->delimiter(',')
      ->type_name("GLOB,..");
  add_integer(*command, "--samples", flags->samples, 0, int64_t{1} << 40,
              "Drawn from the data (default 1000); 0: all");
  add_integer(*command, "--seed", flags->seed, 0, int64_t{1} << 53, "Of the samples");
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback([flags, &context] {
    context.run = [flags, &context] { run_sensitivity_command(*flags, context); };
  });
}

}  // namespace narrow::cli
