// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>

#include "commands.h"
#include "inputs.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/data/npz.h"
#include "narrow/evaluate/bench.h"
#include "narrow/report/table.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nExamples:\n"
    "  narrow run model.onnx --input image=x.npy --output out.npz\n"
    "  narrow run model.onnx --input inputs.npz --output out.npz --json\n"
    "  narrow run model.onnx --inputs test_data_set_0 --output out.npz\n";

struct RunFlags {
  std::string model;
  std::vector<std::string> inputs;
  std::string folder;
  std::string output;
  std::string compute;
};

struct Range {
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();
  int64_t not_finite = 0;
};

Range range_of(const Tensor& tensor) {
  Range range;
  for (const float v : tensor.to_floats()) {
    if (!std::isfinite(v)) {
      ++range.not_finite;
      continue;
    }
    range.min = std::min(range.min, double{v});
    range.max = std::max(range.max, double{v});
  }
  return range;
}

std::map<std::string, Tensor> gather_inputs(const RunFlags& flags, const Graph& graph) {
  if (!flags.folder.empty()) return read_input_folder(flags.folder, graph);
  if (flags.inputs.empty() && !graph.inputs().empty()) {
    throw Error(ErrorCode::invalid_argument, "run needs inputs; it makes none up",
                "give --input NAME=FILE.npy, --input FILE.npz or --inputs FOLDER; to time a model "
                "on random inputs use narrow bench");
  }
  return read_inputs(flags.inputs, graph);
}

/// Before the model runs.
void check_output(const std::string& path, size_t outputs) {
  if (path.empty()) return;
  const auto extension = std::filesystem::path(path).extension();
  if (extension != ".npz" && (extension != ".npy" || outputs != 1)) {
    throw Error(ErrorCode::invalid_argument,
                extension == ".npy"
                    ? fmt::format("an .npy file holds one output, the model has {}", outputs)
                    : fmt::format("--output {}: neither .npz nor .npy", path),
                "name a file FILE.npz");
  }
  check_output_path(path);
}

void write_outputs(const std::string& path, const std::map<std::string, Tensor>& outputs) {
  if (path.empty()) return;
  if (std::filesystem::path(path).extension() == ".npz") return write_npz(path, outputs);
  write_npy(path, outputs.begin()->second);
}

std::string summary(const std::map<std::string, Tensor>& outputs) {
  Table table({{"output"},
               {"value"},
               {"min", Align::right},
               {"max", Align::right},
               {"NaN, inf", Align::right}});
  for (const auto& [name, tensor] : outputs) {
    const Range r = range_of(tensor);
    table.add_row({name, tensor.describe(), fmt::format("{:.6g}", r.min),
                   fmt::format("{:.6g}", r.max), std::to_string(r.not_finite)});
  }
  return table.text();
}

Json json_of(const std::map<std::string, Tensor>& outputs) {
  Json list = Json::array();
  for (const auto& [name, tensor] : outputs) {
    const Range r = range_of(tensor);
    list.push_back({{"name", name},
                    {"dtype", to_string(tensor.dtype())},
                    {"shape", tensor.dims()},
                    {"min", json_number(r.min)},
                    {"max", json_number(r.max)},
                    {"not_finite", r.not_finite}});
  }
  return list;
}

void run_model(const RunFlags& flags, Context& context) {
  Graph graph = load_model(flags.model);
  check_output(flags.output, graph.outputs().size());
  const std::map<std::string, Tensor> inputs = gather_inputs(flags, graph);
  const Session session =
      make_session(flags.model, std::move(graph), session_options(context, flags.compute));
  const Progress progress = make_progress();
  progress.check_cancelled();
  const auto start = std::chrono::steady_clock::now();
  const std::map<std::string, Tensor> outputs = session.run_named(inputs);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  progress.check_cancelled();
  write_outputs(flags.output, outputs);

  std::vector<Tensor> in_order;
  for (const std::string& name : session.output_names()) in_order.push_back(outputs.at(name));
  const std::string hash = hash_tensors(in_order);
  const Json json = {{"outputs", json_of(outputs)},
                     {"output_hash", hash},
                     {"seconds", seconds},
                     {"output", flags.output}};
  std::string text =
      summary(outputs) + fmt::format("\n{} in {}\n",
                                     session.output_names().size() == 1
                                         ? "1 output"
                                         : fmt::format("{} outputs", session.output_names().size()),
                                     format_microseconds(seconds * 1e6));
  if (!flags.output.empty()) text += fmt::format("written to {}\n", flags.output);
  context.print(json_text(json), text);
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("run", "Run a model once on given inputs");
  auto flags = std::make_shared<RunFlags>();
  add_model(*command, "model", flags->model, "The model");
  CLI::Option* input =
      command
          ->add_option("--input", flags->inputs,
                       "NAME=FILE.npy, or FILE.npz with arrays named as the inputs; repeatable")
          ->type_name("[NAME=]FILE")
          ->expected(1, -1);
  command
      ->add_option("--inputs", flags->folder, "Folder of ONNX tensors input_0.pb, input_1.pb ...")
      ->type_name("FOLDER")
      ->excludes(input);
  command->add_option("-o,--output", flags->output, "Where the outputs go, by name")
      ->type_name("FILE.npz");
  add_compute(*command, flags->compute);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_model(*flags, context); }; });
}

}  // namespace narrow::cli
