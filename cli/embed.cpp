// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/embed.h"

#include <fmt/format.h>

#include <memory>

#include "commands.h"
#include "llm.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/data/npz.h"
#include "narrow/report/table.h"
#include "text.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nEach line of the file is a text, empty ones too. The output is an array of numpy, float32\n"
    "[lines, width]. MODEL is the folder of a Hugging Face model, a .gguf file, or the .onnx file\n"
    "of an encoder that narrow wrote (or with its tokenizer.json beside it). Pooling, the longest\n"
    "text and a prompt come from the model's files, where they say so.\n"
    "\nExamples:\n"
    "  narrow embed ./all-MiniLM-L6-v2 --input lines.txt --output vectors.npy\n"
    "  narrow embed minilm.w8a8.onnx --input lines.txt --output vectors.npy --threads 2 --json\n"
    "  narrow embed ./llama --input lines.txt --output vectors.npy --pooling last --no-normalize\n";

struct EmbedFlags {
  std::string model;
  std::string input;
  std::string output;
  std::string pooling;
  std::string compute = "integer";
  bool no_normalize = false;
  int64_t batch = llm::EmbedOptions{}.batch;
  int64_t max_tokens = 0;
};

llm::EmbedOptions options_of(const EmbedFlags& flags, const Context& context) {
  llm::EmbedOptions options;
  for (const llm::Pooling p : {llm::Pooling::mean, llm::Pooling::cls, llm::Pooling::last}) {
    if (flags.pooling == llm::to_string(p)) options.pooling = p;
  }
  options.normalize = !flags.no_normalize;
  options.max_tokens = flags.max_tokens;
  options.batch = flags.batch;
  options.threads = context.thread_count();
  options.activations = activations_of(flags.compute);
  return options;
}

/// Without the line ends of other systems, which text files of Windows have.
std::vector<std::string_view> texts_of(const MappedFile& file) {
  std::vector<std::string_view> lines = lines_of(file.text());
  for (std::string_view& line : lines) {
    if (line.ends_with('\r')) line.remove_suffix(1);
  }
  if (lines.empty()) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("'{}' is empty: there is no text", file.path().string()),
                "each line of the file is a text");
  }
  return lines;
}

Json json_of(const llm::EmbedCounts& c, const llm::Embedder& embedder, const EmbedFlags& flags) {
  Json j;
  j["texts"] = c.texts;
  j["width"] = embedder.width();
  j["tokens"] = c.tokens;
  j["truncated"] = c.truncated;
  j["ill_formed"] = c.ill_formed;
  j["max_tokens"] = embedder.max_tokens();
  j["pooling"] = llm::to_string(embedder.pooling());
  j["normalized"] = !flags.no_normalize;
  j["tokenize_seconds"] = json_number(c.tokenize_seconds);
  j["model_seconds"] = json_number(c.model_seconds);
  j["output"] = flags.output;
  return j;
}

std::string text_of(const llm::EmbedCounts& c, const llm::Embedder& embedder,
                    const EmbedFlags& flags) {
  std::string text =
      fmt::format("{} texts, {} tokens -> {} [{}, {}], {} pooling{}\n", format_count(c.texts),
                  format_count(c.tokens), flags.output, c.texts, embedder.width(),
                  llm::to_string(embedder.pooling()), flags.no_normalize ? "" : ", length 1");
  if (c.truncated > 0) {
    text += fmt::format("{} texts have more than {} tokens: their ends are cut off\n",
                        format_count(c.truncated), embedder.max_tokens());
  }
  if (c.ill_formed > 0) {
    text += fmt::format("{} texts are no UTF-8: such bytes are read as U+FFFD\n",
                        format_count(c.ill_formed));
  }
  const double seconds = c.tokenize_seconds + c.model_seconds;
  return text + fmt::format("{:.2f} s, {:.0f} texts/s\n", seconds,
                            static_cast<double>(c.texts) / std::max(seconds, 1e-9));
}

void run_embed(const EmbedFlags& flags, Context& context) {
  if (std::filesystem::path(flags.output).extension() != ".npy") {
    throw Error(ErrorCode::invalid_argument, fmt::format("--output {}: no .npy file", flags.output),
                "name a file FILE.npy");
  }
  check_output_path(flags.output);
  const auto file = MappedFile::open(flags.input);
  const std::vector<std::string_view> texts = texts_of(*file);
  const llm::Embedder embedder = llm::Embedder::open(flags.model, options_of(flags, context));
  NpyRows rows(flags.output, static_cast<int64_t>(texts.size()), embedder.width());
  const llm::EmbedCounts counts = embedder.embed(
      texts, [&](const Tensor& part) { rows.add(part); }, make_progress());
  rows.commit();
  context.print(json_text(json_of(counts, embedder, flags)), text_of(counts, embedder, flags));
}

}  // namespace

void add_embed(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("embed", "Turn each line of a text into a vector");
  auto flags = std::make_shared<EmbedFlags>();
  add_model(*command, "model", flags->model, "The model");
  command->add_option("--input", flags->input, "The texts, one a line")
      ->type_name("FILE")
      ->required();
  command->add_option("--output,-o", flags->output, "The vectors")
      ->type_name("FILE.npy")
      ->required();
  add_choice(*command, "--pooling", flags->pooling, {"mean", "cls", "last"},
             "How the vectors of tokens become one (default: as the model's files say)");
  command->add_flag("--no-normalize", flags->no_normalize, "Leave the vectors as long as they are");
  add_integer(*command, "--max-tokens", flags->max_tokens, 1, 1 << 20,
              "Cut texts to so many tokens, special ones included (default: the model's)");
  add_integer(
      *command, "--batch", flags->batch, 1, 1 << 16,
      "Texts that are sorted by length and run together (default 1024); 1 is the least latency");
  add_activations(*command, flags->compute);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_embed(*flags, context); }; });
}

}  // namespace narrow::cli
