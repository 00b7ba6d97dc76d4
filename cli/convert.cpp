// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "commands.h"
#include "llm.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/core/version.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/pipeline/torchscript.h"

namespace narrow::cli {
namespace {

struct ConvertFlags {
  LlmFlags llm;
  std::vector<std::string> shapes;
};

void refuse_other_flags(const ConvertFlags& flags) {
  std::vector<std::string> foreign;
  if (!flags.llm.format.empty()) foreign.emplace_back("--format");
  if (!flags.llm.max_memory.empty()) foreign.emplace_back("--max-memory");
  if (flags.llm.resume) foreign.emplace_back("--resume");
  refuse_flags("convert", foreign, "language models");
}

void convert_torchscript(const ConvertFlags& flags, Context& context) {
  refuse_other_flags(flags);
  if (!is_onnx_name(flags.llm.output)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}': a TorchScript model goes into an .onnx file", flags.llm.output),
                "give the file such a name");
  }
  if (flags.shapes.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "a TorchScript file does not say how large its inputs are",
                "give --input-shape for each input, in order, as in Nx3x32x32");
  }
  check_output_path(flags.llm.output);
  std::vector<SymbolicShape> shapes;
  for (const std::string& text : flags.shapes) shapes.push_back(parse_input_shape(text));
  ScriptGraph script = read_torchscript(flags.llm.model, shapes);
  script.graph.metadata["narrow.version"] = kVersion;
  OnnxWriteOptions options;
  options.opset = flags.llm.opset;
  const OnnxWriteReport written = write_onnx(script.graph, flags.llm.output, options);
  Json json;
  json["model"] = flags.llm.model;
  json["output"] = flags.llm.output;
  json["nodes"] = script.graph.num_nodes();
  json["opset"] = written.opset;
  json["output_bytes"] = std::filesystem::file_size(flags.llm.output);
  json["largest_difference"] = script.largest_difference;
  context.print(json.dump(2),
                fmt::format("{}: {} nodes, opset {}; outputs for random input differ from "
                            "libtorch's by at most {:.2g} of the largest\n",
                            flags.llm.output, script.graph.num_nodes(), written.opset,
                            script.largest_difference));
}

void run_convert(const ConvertFlags& flags, Context& context) {
  if (is_torchscript(flags.llm.model)) return convert_torchscript(flags, context);
  if (is_onnx_name(flags.llm.model)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' is an ONNX model already", flags.llm.model),
                "every command reads it as it is; quantize and train write others from it");
  }
  if (!flags.shapes.empty()) {
    throw Error(ErrorCode::invalid_argument, "--input-shape is for TorchScript models alone",
                "narrow convert --help shows which model takes which flags");
  }
  convert_language_model(flags.llm, context);
}

constexpr const char* kExamples =
    "\nExamples:\n  narrow convert ./llama -o llama-f16.gguf --format f16\n"
    "  narrow convert q4.gguf -o float.gguf --format f32\n"
    "  narrow convert llama.gguf -o llama-folder --format bf16\n"
    "  narrow convert ./minilm -o minilm.onnx\n"
    "  narrow convert cnn.pt -o cnn.onnx --input-shape Nx1x28x28\n";

}  // namespace

void add_convert(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("convert", "Write a model in another form without quantizing it");
  auto flags = std::make_shared<ConvertFlags>();
  LlmFlags& llm = flags->llm;
  llm.command = "convert";
  command
      ->add_option("model", llm.model, "A .gguf file, a Hugging Face folder, or TorchScript (.pt)")
      ->type_name("MODEL")
      ->required();
  command
      ->add_option("-o,--output", llm.output,
                   "FILE.gguf, FILE.onnx, or the folder of a Hugging Face model")
      ->type_name("OUTPUT")
      ->required();
  add_choice(*command, "--format", llm.format, {"f32", "f16", "bf16"},
             "Type of the matrices (default: as they are; blocks become f32 but in GGUF)");
  command->add_option("--opset", llm.opset, "Of FILE.onnx (default: the lowest possible)")
      ->type_name("INT");
  command
      ->add_option("--input-shape", flags->shapes,
                   "Of a TorchScript model's input, once for each; a name is any size")
      ->type_name("Nx3x32x32");
  add_memory_flags(*command, llm, "Options");
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_convert(*flags, context); }; });
}

}  // namespace narrow::cli
