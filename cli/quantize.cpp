// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "commands.h"
#include "llm.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/graph/pass.h"
#include "narrow/pipeline/recipe.h"
#include "narrow/pipeline/weight_source.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nEvery recipe key is a flag; with --recipe FILE the flags change what "
    "the file says.\n"
    "\nExamples:\n"
    "  narrow quantize model.onnx -o int8.onnx --data mnist:DIR,split=train "
    "--eval-data mnist:DIR\n"
    "  narrow quantize model.onnx -o w4.onnx --mode weight_only --weights int4 "
    "--group-size 32\n"
    "  narrow quantize model.onnx -o q.onnx --data images:photos --target "
    "openvino --max-drop 0.5\n"
    "  narrow quantize model.onnx -o q.onnx --recipe r.yaml --keep-float "
    "conv1,fc2\n"
    "  narrow quantize model.onnx --data images:photos --dump-recipe > "
    "r.yaml\n"
    "\nA language model, the folder of a Hugging Face model or a .gguf file, "
    "becomes a .gguf or an .onnx file:\n"
    "  narrow quantize ./llama -o llama.gguf --format q4_k_m\n"
    "  narrow quantize f16.gguf -o q.gguf --format iq4_xs --statistics "
    "imatrix.gguf\n"
    "  narrow quantize ./llama -o q.gguf --format q3_k_m --tensor-type "
    "'*ffn_down*=q5_k' --max-memory 1G\n"
    "  narrow quantize ./llama -o llama.onnx --format w4g32\n"
    "  narrow quantize ./minilm -o minilm.onnx --format w8a8\n"
    "  narrow quantize ./llama -o q.gguf --data text:wiki.txt --chunks 20 "
    "--max-kl 0.02\n";

/// A flag that sets a recipe key, in the order of the command line.
struct KeyText {
  std::string key;
  std::string text;
};

struct QuantizeFlags {
  std::string model;
  std::string output;
  std::string recipe_file;
  std::vector<KeyText> keys;
  std::string statistics;
  std::string save_statistics;
  std::vector<std::string> disabled_passes;
  bool qoperator = false;
  bool dump_recipe = false;
  bool dry_run = false;
  bool measure_latency = false;
  LlmFlags llm;
};

std::string flag_name(std::string_view key) {
  std::string name(key);
  std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

void run_language_model(const QuantizeFlags& flags, Context& context) {
  LlmFlags llm = flags.llm;
  std::vector<std::string> foreign;
  for (const KeyText& key : flags.keys) {
    if (key.key == "format") {
      llm.format = key.text;
    } else if (key.key == "exclude" || key.key == "keep_float") {
      llm.keep_float.push_back(key.text);
    } else if (key.key == "opset" && is_onnx_name(flags.output)) {
      Recipe recipe;
      set_recipe_key(recipe, key.key, key.text);
      llm.opset = recipe.opset;
    } else if (key.key == "data" || key.key == "eval_data") {
      if (!llm.text.empty()) {
        throw Error(ErrorCode::invalid_argument, "a language model is measured on one text",
                    "leave --data or --eval-data out: they mean the same here");
      }
      llm.text = key.text;
    } else if (key.key == "max_drop") {
      Recipe checked;
      set_recipe_key(checked, key.key, key.text);
      llm.max_drop = checked.max_drop;
    } else {
      foreign.push_back(flag_name(key.key));
    }
  }
  const std::pair<bool, const char*> others[] = {
      {!flags.recipe_file.empty(), "--recipe"},
      {!flags.save_statistics.empty(), "--save-statistics"},
      {!flags.disabled_passes.empty(), "--disable-pass"},
      {flags.qoperator, "--qoperator"},
      {flags.dump_recipe, "--dump-recipe"},
      {flags.dry_run, "--dry-run"},
      {flags.measure_latency, "--measure-latency"},
  };
  for (const auto& [given, name] : others) {
    if (given) foreign.emplace_back(name);
  }
  refuse_flags("quantize", foreign, "ONNX models");
  if (flags.output.empty()) {
    throw Error(ErrorCode::invalid_argument, "quantize needs the name of the file to write",
                "add -o FILE.gguf or FILE.onnx");
  }
  llm.model = flags.model;
  llm.output = flags.output;
  llm.statistics = flags.statistics;
  quantize_language_model(llm, context);
}

Recipe build_recipe(const QuantizeFlags& flags) {
  Recipe recipe = flags.recipe_file.empty() ? Recipe{} : load_recipe(flags.recipe_file);
  for (const KeyText& key : flags.keys) set_recipe_key(recipe, key.key, key.text);
  if (flags.qoperator) set_recipe_key(recipe, "format", "qoperator");
  return recipe;
}

void check_output(const QuantizeFlags& flags) {
  check_onnx_output(flags.output);
  std::error_code ignored;
  if (std::filesystem::equivalent(flags.model, flags.output, ignored)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' is the float model itself", flags.output),
                "write to another name: the float model is worth keeping");
  }
}

void run_quantization(const QuantizeFlags& flags, Context& context) {
  if (!flags.model.empty() && is_language_model(flags.model)) {
    return run_language_model(flags, context);
  }
  refuse_flags("quantize", given_llm_flags(flags.llm), "language models");
  const Recipe recipe = build_recipe(flags);
  if (flags.dump_recipe) {
    const std::string yaml = dump_recipe(recipe);
    return context.print(json_text({{"recipe", yaml}}), yaml);
  }
  if (flags.model.empty()) {
    throw Error(ErrorCode::invalid_argument, "quantize needs a model", "narrow quantize --help");
  }
  if (flags.output.empty() && !flags.dry_run) {
    throw Error(ErrorCode::invalid_argument, "quantize needs the name of the file to write",
                "add -o FILE.onnx, or --dry-run to write none");
  }
  if (!flags.dry_run) check_output(flags);
  QuantizeJob job;
  job.model = flags.model;
  if (!flags.dry_run) job.output = flags.output;
  job.recipe = recipe;
  job.threads = context.thread_count();
  job.statistics = flags.statistics;
  job.save_statistics = flags.save_statistics;
  job.measure_latency = flags.measure_latency;
  job.disabled_passes = flags.disabled_passes;
  job.command = context.command_line;
  job.progress = make_progress();
  job.preflight = [](const std::string& line) { write_stderr(line); };
  try {
    const QuantizeReport report = run_quantize(job);
    context.print(to_json(report), to_text(report));
  } catch (const QualityBelowTarget& refusal) {
    context.print(to_json(refusal.report()), to_text(refusal.report()));
    throw;
  }
}

/// One flag for each key of the recipe: the table is the only list.
void add_recipe_flags(CLI::App& command, QuantizeFlags& flags) {
  for (const RecipeKey& key : recipe_keys()) {
    const std::string name = key.name;
    const auto set = [&flags, name](const std::string& text) {
      flags.keys.push_back({name, text});
    };
    const bool boolean = std::string_view(key.values) == "BOOL";
    if (boolean) {
      // --equalize, or --equalize=false to change what the file says.
      const auto is_bool = [](const std::string& text) {
        return text == "true" || text == "false" ? std::string() : text + ": true or false";
      };
      command
          .add_flag_function(
              flag_name(key.name), [set](std::int64_t times) { set(times > 0 ? "true" : "false"); },
              key.help)
          ->check(is_bool)
          ->group("Recipe");
      continue;
    }
    auto* option = command.add_option_function<std::vector<std::string>>(
        flag_name(key.name),
        [set](const std::vector<std::string>& texts) {
          for (const std::string& text : texts) set(text);
        },
        key.help);
    option->type_name(key.values)->group("Recipe");
    option->expected(1, key.repeatable ? 1 << 20 : 1);
    if (key.repeatable) option->allow_extra_args(false);
  }
}

std::vector<std::string> pass_names() {
  std::vector<std::string> names;
  for (const PassInfo& pass : all_passes()) names.emplace_back(pass.name);
  return names;
}

}  // namespace

void add_quantize(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("quantize", "Make a quantized model, and verify what was written");
  auto flags = std::make_shared<QuantizeFlags>();
  command->add_option("model", flags->model, "The float model")->type_name("MODEL");
  command->add_option("-o,--output", flags->output, "The file to write")->type_name("FILE");
  command->add_option("--recipe", flags->recipe_file, "Start from this recipe")->type_name("YAML");
  command->add_flag("--dump-recipe", flags->dump_recipe, "Print the recipe and stop");
  command->add_flag("--dry-run", flags->dry_run, "Do everything but write the file");
  command->add_flag("--qoperator", flags->qoperator, "Short for --format qoperator");
  command
      ->add_option("--statistics", flags->statistics,
                   "Calibration statistics to read instead of calibrating, if "
                   "the file is there; of a language model: an importance matrix")
      ->type_name("FILE");
  command
      ->add_option("--save-statistics", flags->save_statistics,
                   "Where to write the calibration statistics")
      ->type_name("JSON");
  command->add_flag("--measure-latency", flags->measure_latency,
                    "Add the latency of both models to the report");
  command
      ->add_option("--disable-pass", flags->disabled_passes,
                   fmt::format("Passes to leave out: {}", fmt::join(pass_names(), ", ")))
      ->type_name("NAME")
      ->allow_extra_args(false);
  add_recipe_flags(*command, *flags);
  add_llm_flags(*command, flags->llm);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback([flags, &context] {
    context.run = [flags, &context] { run_quantization(*flags, context); };
  });
}

}  // namespace narrow::cli
