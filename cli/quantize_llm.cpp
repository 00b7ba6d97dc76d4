// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "commands.h"
#include "llm.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/pipeline/llm_folder.h"
#include "narrow/pipeline/llm_onnx.h"
#include "narrow/pipeline/llm_quantize.h"
#include "text.h"

namespace narrow::cli {
namespace {

constexpr const char* kDefaultFormat = "q4_k_m";
constexpr const char* kDefaultOnnxFormat = "w4g32";

bool is_gguf_name(const std::string& output) {
  return std::filesystem::path(output).extension() == ".gguf";
}

std::string format_names(const std::string& output) {
  std::vector<std::string> names;
  if (is_onnx_name(output)) {
    for (const OnnxWeightFormat& f : onnx_weight_formats()) names.emplace_back(f.name);
  } else {
    for (const FileFormat& f : file_formats()) names.emplace_back(f.name);
  }
  return fmt::format("{}", fmt::join(names, "|"));
}

void check_output(const std::string& model, const std::string& output) {
  check_output_path(output);
  std::error_code ignored;
  if (std::filesystem::equivalent(model, output, ignored)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is the model itself", output),
                "write to another name");
  }
}

WeightMethod method_of(const LlmFlags& flags) {
  if (flags.method.empty()) {
    return flags.statistics.empty() ? WeightMethod::mse : WeightMethod::importance;
  }
  for (const WeightMethod m : {WeightMethod::rtn, WeightMethod::importance}) {
    if (flags.method == to_string(m)) return m;
  }
  return WeightMethod::mse;
}

std::optional<LlmEvaluationJob> evaluation_of(const LlmFlags& flags) {
  if (flags.text.empty()) {
    const bool asked = flags.chunks > 0 || flags.context > 0 || flags.max_kl >= 0 || flags.max_drop;
    if (!asked) return std::nullopt;
    throw Error(ErrorCode::invalid_argument,
                "--chunks, --context, --max-kl and --max-drop need a text to measure on",
                "add --data text:FILE");
  }
  LlmEvaluationJob job;
  job.text = read_text_data(flags.text);
  job.data = flags.text;
  if (flags.context > 0) job.context = flags.context;
  job.chunks = flags.chunks;
  if (flags.max_kl >= 0) job.max_kl = flags.max_kl;
  job.max_drop = flags.max_drop;
  return job;
}

LlmQuantizeJob job_of(const LlmFlags& flags, const Context& context) {
  LlmQuantizeJob job;
  job.model = flags.model;
  job.output = flags.output;
  job.format = flags.format;
  job.statistics = flags.statistics;
  job.method = method_of(flags);
  // Exceptions from quantization are narrower than types, so they come last and win.
  for (const std::string& text : flags.tensor_types) job.rules.push_back(parse_tensor_rule(text));
  for (const std::string& match : flags.keep_float) job.rules.push_back({match, std::nullopt});
  if (!flags.max_memory.empty()) job.max_memory = parse_memory(flags.max_memory);
  job.evaluation = evaluation_of(flags);
  job.resume = flags.resume;
  job.requantize = flags.requantize;
  job.threads = context.thread_count();
  job.progress = make_progress();
  return job;
}

void refuse_gguf_flags(const LlmFlags& flags) {
  std::vector<std::string> foreign;
  if (!flags.tensor_types.empty()) foreign.emplace_back("--tensor-type");
  if (!flags.statistics.empty()) foreign.emplace_back("--statistics");
  if (!flags.max_memory.empty()) foreign.emplace_back("--max-memory");
  if (flags.resume) foreign.emplace_back("--resume");
  if (!flags.text.empty()) foreign.emplace_back("--data");
  if (flags.chunks > 0) foreign.emplace_back("--chunks");
  if (flags.context > 0) foreign.emplace_back("--context");
  if (flags.max_kl >= 0) foreign.emplace_back("--max-kl");
  if (flags.max_drop) foreign.emplace_back("--max-drop");
  refuse_flags(flags.command, foreign, "GGUF files");
}

void run_onnx(const LlmFlags& flags, Context& context) {
  check_output(flags.model, flags.output);
  refuse_gguf_flags(flags);
  LlmOnnxJob job;
  job.model = flags.model;
  job.output = flags.output;
  job.format = flags.format;
  job.method = method_of(flags);
  job.keep_float = flags.keep_float;
  job.requantize = flags.requantize;
  job.opset = flags.opset;
  job.threads = context.thread_count();
  job.progress = make_progress();
  const WeightsReport report = run_llm_onnx(job);
  context.print(to_json(report), to_text(report));
}

void run_folder(const LlmFlags& flags, Context& context) {
  // A mistyped name would become a folder.
  if (is_other_format(flags.output)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}': a language model is not written as a {} file", flags.output,
                            std::filesystem::path(flags.output).extension().string()),
                "name a folder, or a file that ends in .gguf or .onnx");
  }
  refuse_gguf_flags(flags);
  LlmFolderJob job;
  job.model = flags.model;
  job.output = flags.output;
  job.format = flags.format;
  job.threads = context.thread_count();
  job.progress = make_progress();
  const WeightsReport report = run_llm_folder(job);
  context.print(to_json(report), to_text(report));
}

/// What is written goes by the name of the output.
void run(const LlmFlags& flags, Context& context) {
  if (is_onnx_name(flags.output)) return run_onnx(flags, context);
  if (flags.opset != 0) refuse_flags(flags.command, {"--opset"}, "ONNX files");
  if (!is_gguf_name(flags.output)) return run_folder(flags, context);
  check_output(flags.model, flags.output);
  try {
    const WeightsReport report = run_llm_quantize(job_of(flags, context));
    context.print(to_json(report), to_text(report));
  } catch (const WeightsBelowTarget& refusal) {
    context.print(to_json(refusal.report()), to_text(refusal.report()));
    throw;
  }
}

}  // namespace

bool is_onnx_name(const std::string& output) {
  return std::filesystem::path(output).extension() == ".onnx";
}

void add_memory_flags(CLI::App& command, LlmFlags& flags, const char* group) {
  command
      .add_option("--max-memory", flags.max_memory,
                  "What buffers and the mapped model may take, as in 512M or 2G")
      ->type_name("BYTES")
      ->group(group);
  command.add_flag("--resume", flags.resume, "Go on with what a killed run of this command left")
      ->group(group);
}

void add_llm_flags(CLI::App& command, LlmFlags& flags) {
  constexpr const char* kGroup = "Language models";
  add_choice(command, "--method", flags.method, {"rtn", "mse", "importance"},
             "How scales are chosen: from extremes, for the least error (default), or for the "
             "least error weighted by --statistics (default where given)")
      ->group(kGroup);
  command
      .add_option("--tensor-type", flags.tensor_types,
                  "GLOB=TYPE: these tensors get this type, or stay 'float'; again for more, the "
                  "last one wins")
      ->type_name("GLOB=TYPE")
      ->allow_extra_args(false)
      ->group(kGroup);
  command.add_flag("--requantize", flags.requantize, "Allow a model that is quantized already")
      ->group(kGroup);
  add_memory_flags(command, flags, kGroup);
  add_integer(command, "--context", flags.context, 4, 1 << 20,
              "Tokens of a chunk of the text of --data (default 512)")
      ->group(kGroup);
  add_integer(command, "--chunks", flags.chunks, 1, INT64_MAX,
              "At most so many chunks of that text (default: all)")
      ->group(kGroup);
  add_number(command, "--max-kl", flags.max_kl, 0, 1e6,
             "The mean KL divergence from the source that is allowed, in nats")
      ->group(kGroup);
}

std::vector<std::string> given_llm_flags(const LlmFlags& flags) {
  std::vector<std::string> given;
  if (!flags.method.empty()) given.emplace_back("--method");
  if (!flags.tensor_types.empty()) given.emplace_back("--tensor-type");
  if (flags.requantize) given.emplace_back("--requantize");
  if (!flags.max_memory.empty()) given.emplace_back("--max-memory");
  if (flags.resume) given.emplace_back("--resume");
  if (flags.context > 0) given.emplace_back("--context");
  if (flags.chunks > 0) given.emplace_back("--chunks");
  if (flags.max_kl >= 0) given.emplace_back("--max-kl");
  return given;
}

void quantize_language_model(const LlmFlags& flags, Context& context) {
  LlmFlags complete = flags;
  if (!is_onnx_name(flags.output) && !is_gguf_name(flags.output)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}': quantized weights go into a .gguf or .onnx file", flags.output),
                "give the file such a name; narrow convert writes a folder, in f32, f16 or bf16");
  }
  if (complete.format.empty()) {
    complete.format = is_onnx_name(complete.output) ? kDefaultOnnxFormat : kDefaultFormat;
  }
  if (complete.format == "qdq" || complete.format == "qoperator") {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("--format {} is of ONNX models", complete.format),
                "of a language model it is one of " + format_names(complete.output));
  }
  run(complete, context);
}

void convert_language_model(const LlmFlags& flags, Context& context) {
  run(flags, context);
}

}  // namespace narrow::cli
