// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <optional>

#include "commands.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/evaluate/evaluate.h"
#include "narrow/report/results.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nExamples:\n"
    "  narrow eval model.onnx --data mnist:/usr/share/datasets/fashion-mnist\n"
    "  narrow eval model.onnx --data images:val,resize=256,crop=224 --metric top5 --json\n"
    "  narrow eval int8.onnx --reference float.onnx --data images:photos --metric agreement\n";

struct EvalFlags {
  std::string model;
  std::string data;
  std::string metric = "top1";
  std::string reference;
  std::string compute;
  std::string output;
  int64_t batch = 0;
};

void run_eval(const EvalFlags& flags, Context& context) {
  const Metric metric = *metric_from_string(flags.metric);
  if (needs_reference(metric) && flags.reference.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "metric " + flags.metric + " compares with a second model",
                "name it with --reference MODEL");
  }
  Graph graph = load_model(flags.model);
  const auto data = open_data(flags.data, graph);
  const SessionOptions options = session_options(context, flags.compute);
  const Session session = make_session(flags.model, std::move(graph), options);
  std::optional<Session> reference;
  if (!flags.reference.empty()) {
    reference = make_session(flags.reference, load_model(flags.reference), options);
  }
  EvaluateOptions evaluation;
  evaluation.metric = metric;
  evaluation.batch = flags.batch;
  evaluation.threads = context.thread_count();
  evaluation.output = flags.output;
  evaluation.progress = make_progress();
  const MetricResult result =
      evaluate(session, *data, evaluation, reference ? &*reference : nullptr);
  context.print(to_json(result), to_text(result));
}

}  // namespace

void add_eval(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("eval", "Measure a model's quality on data");
  auto flags = std::make_shared<EvalFlags>();
  add_model(*command, "model", flags->model, "The model");
  add_data(*command, flags->data, "Data to measure on")->required();
  add_choice(*command, "--metric", flags->metric, {"top1", "top5", "mse", "agreement", "cosine"},
             "What to measure (default top1)");
  command->add_option("--reference", flags->reference, "Model to compare with (agreement, cosine)")
      ->type_name("ONNX");
  command->add_option("--output-name", flags->output, "Output that is judged (default: the first)")
      ->type_name("NAME");
  add_integer(*command, "--batch", flags->batch, 0, 65536, "Samples at once; 0: chosen");
  add_compute(*command, flags->compute);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_eval(*flags, context); }; });
}

}  // namespace narrow::cli
