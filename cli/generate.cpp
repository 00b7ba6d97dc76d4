// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "commands.h"
#include "llm.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/core/file.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nMODEL is the folder of a Hugging Face model or a .gguf file. The text goes to stdout as it "
    "is\n"
    "made, speeds to stderr. Special tokens in the prompt count as such.\n"
    "\nExamples:\n"
    "  narrow generate ./llama --prompt \"Once upon a time\"\n"
    "  narrow generate q4.gguf --prompt-file question.txt --temperature 0 --tokens 500\n"
    "  narrow generate ./llama --prompt \"1. apples 2.\" --stop \"10.\" --seed 7 --json\n";

struct GenerateFlags {
  std::string model;
  std::string prompt;
  std::string prompt_file;
  std::string cache = "f16";
  std::string compute = "integer";
  bool no_repack = false;
  int64_t context = 0;
  int64_t seed = 1;
  llm::GenerateOptions options;
};

std::vector<int32_t> prompt_of(const GenerateFlags& flags, const llm::Tokenizer& tokenizer) {
  const std::string text = flags.prompt_file.empty() ? flags.prompt : read_text(flags.prompt_file);
  llm::EncodeOptions encode;
  encode.parse_special = true;
  std::vector<int32_t> ids = tokenizer.encode(text, encode);
  if (ids.empty() && tokenizer.special().bos >= 0) ids.push_back(tokenizer.special().bos);
  if (ids.empty()) {
    throw Error(ErrorCode::invalid_argument, "the prompt is empty, and the model has no bos",
                "give --prompt TEXT");
  }
  return ids;
}

llm::DecoderOptions decoder_options(const llm::ModelConfig& config, const GenerateFlags& flags,
                                    int64_t prompt_tokens, int threads) {
  llm::DecoderOptions options;
  options.cache = cache_of(flags.cache);
  options.threads = threads;
  options.activations = activations_of(flags.compute);
  // No more memory than this text can take.
  const int64_t longest = flags.context > 0 ? flags.context : config.context;
  if (prompt_tokens > longest) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("the prompt's {} tokens do not fit a context of {}", prompt_tokens, longest),
        "ask for a longer one with --context, or cut the prompt");
  }
  options.capacity = std::min(longest, prompt_tokens + flags.options.tokens);
  options.repack = !flags.no_repack;
  options.progress = make_progress();
  return options;
}

Json json_of(const llm::GenerateResult& r) {
  Json j;
  j["text"] = r.text;
  j["tokens"] = r.ids.size();
  j["finish"] = llm::to_string(r.finish);
  j["ids"] = r.ids;
  j["prompt_tokens"] = r.prompt_tokens;
  j["prompt_seconds"] = json_number(r.prompt_seconds);
  j["seconds"] = json_number(r.prompt_seconds + r.generate_seconds);
  j["tokens_per_second"] = json_number(r.tokens_per_second());
  return j;
}

void run_generate(const GenerateFlags& flags, Context& context) {
  const llm::LanguageModel model = llm::LanguageModel::open(flags.model);
  const llm::Tokenizer tokenizer = model.checkpoint().tokenizer();
  const std::vector<int32_t> prompt = prompt_of(flags, tokenizer);
  const llm::DecoderOptions decoding = decoder_options(
      model.config(), flags, static_cast<int64_t>(prompt.size()), context.thread_count());
  const llm::MemoryPlan plan = llm::memory_plan(model.config(), decoding);
  const Json memory = say_memory(model.checkpoint(), plan, context);
  warn_context(model.config(), plan.capacity);
  const llm::CachedDecoder decoder(model, decoding);
  llm::Sequence sequence = decoder.start();
  llm::GenerateOptions options = flags.options;
  options.sampling.seed = static_cast<uint64_t>(flags.seed);
  options.ends = model.config().eos;
  const auto show = [&context](std::string_view text) {
    if (!context.json) write_stdout(std::string(text));
    return true;
  };
  const llm::GenerateResult result =
      llm::generate(decoder, sequence, tokenizer, prompt, options, show, make_progress());
  Json j = json_of(result);
  j["memory"] = memory;
  context.print(json_text(j), "\n");
  if (context.json) return;
  const double prompt_speed = static_cast<double>(result.prompt_tokens) / result.prompt_seconds;
  write_stderr(fmt::format(
      "{} tokens ({}), {:.1f} tokens/s; the prompt's {} tokens took {:.2f} s, {:.1f} tokens/s",
      result.ids.size(), llm::to_string(result.finish), result.tokens_per_second(),
      result.prompt_tokens, result.prompt_seconds, prompt_speed));
}

void add_sampling(CLI::App& command, llm::GenerateOptions& o) {
  llm::SamplingOptions& s = o.sampling;
  add_number(command, "--temperature", s.temperature, 0, 100,
             "0: always the most likely token (default 0.8)");
  add_integer(command, "--top-k", s.top_k, 0, INT32_MAX,
              "Draw from so many most likely tokens; 0: all (default 40)");
  add_number(command, "--top-p", s.top_p, 0, 1,
             "Draw from the fewest tokens with so much probability together (default 0.95)");
  add_number(command, "--min-p", s.min_p, 0, 1,
             "Draw from tokens with this share of the largest probability (default 0.05)");
  add_number(command, "--repetition-penalty", s.repetition_penalty, 0.01, 100,
             "Divides logits of tokens seen lately (default 1: off)");
  add_integer(command, "--repetition-window", s.repetition_window, 0, INT32_MAX,
              "How many tokens are lately (default 64)");
}

}  // namespace

void add_generate(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("generate", "Continue a text with a language model");
  auto flags = std::make_shared<GenerateFlags>();
  add_model(*command, "model", flags->model, "The model");
  CLI::Option* prompt =
      command->add_option("--prompt", flags->prompt, "The text to continue")->type_name("TEXT");
  command->add_option("--prompt-file", flags->prompt_file, "A file with it")
      ->type_name("FILE")
      ->excludes(prompt);
  add_integer(*command, "--tokens", flags->options.tokens, 1, 1 << 24,
              "Tokens to make (default 128)");
  add_sampling(*command, flags->options);
  add_integer(*command, "--seed", flags->seed, 0, INT64_MAX, "Of what is drawn (default 1)");
  command->add_option("--stop", flags->options.stop, "Texts that end the generation")
      ->type_name("TEXT")
      ->expected(1, -1);
  command->add_flag("--ignore-ends", flags->options.ignore_ends,
                    "Go on after tokens that end texts");
  add_integer(*command, "--context", flags->context, 1, 1 << 24,
              "Most tokens of prompt and text (default: what the model was trained for)");
  add_cache(*command, flags->cache);
  add_no_repack(*command, flags->no_repack);
  add_activations(*command, flags->compute);
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_generate(*flags, context); }; });
}

}  // namespace narrow::cli
