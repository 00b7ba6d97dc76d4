// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string_view>

#include "commands.h"
#include "model.h"
#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/llm/model_tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/report/table.h"
#include "text.h"

namespace narrow::cli {
namespace {

constexpr const char* kExamples =
    "\nExamples:\n"
    "  narrow tokenize model-folder --text \"Hello there\"\n"
    "  narrow tokenize model.gguf --input novel.txt --no-special --json\n"
    "  narrow tokenize tokenizer.json --input lines.txt --by-line\n";

struct TokenizeFlags {
  std::string model;
  std::string input;
  std::optional<std::string> text;
  bool by_line = false;
  bool no_special = false;
  bool parse_special = false;
};

using Ids = std::vector<int32_t>;

std::vector<Ids> encode(const llm::Tokenizer& tokenizer, const TokenizeFlags& flags) {
  std::shared_ptr<const MappedFile> file;
  if (!flags.text) file = MappedFile::open(flags.input);
  const std::string_view text = flags.text ? std::string_view(*flags.text) : file->text();
  const llm::EncodeOptions options{.add_special = !flags.no_special,
                                   .parse_special = flags.parse_special};
  const Progress progress = make_progress();
  std::vector<Ids> all;
  if (!flags.by_line) return {tokenizer.encode(text, options)};
  for (const std::string_view line : lines_of(text)) {
    progress.check_cancelled();
    all.push_back(tokenizer.encode(line, options));
  }
  return all;
}

/// A piece on one line of a terminal: files may put control characters into it.
std::string shown(std::string_view piece) {
  std::string out;
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02X}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

std::string text_of(const llm::Tokenizer& tokenizer, const std::vector<Ids>& all, bool by_line) {
  std::vector<Column> columns = {{"id", Align::right}, {"piece"}};
  if (by_line) columns.insert(columns.begin(), {"line", Align::right});
  Table table(std::move(columns));
  int64_t count = 0;
  for (size_t line = 0; line < all.size(); ++line) {
    for (const int32_t id : all[line]) {
      std::vector<std::string> cells = {std::to_string(id), shown(tokenizer.piece(id))};
      if (by_line) cells.insert(cells.begin(), std::to_string(line + 1));
      table.add_row(std::move(cells));
      ++count;
    }
  }
  return table.text() + fmt::format("\n{} tokens of a vocabulary of {}\n", format_count(count),
                                    format_count(tokenizer.vocab_size()));
}

void run_tokenize(const TokenizeFlags& flags, Context& context) {
  if (flags.text.has_value() == !flags.input.empty()) {
    throw Error(ErrorCode::invalid_argument, "tokenize takes one text: --input FILE or --text TEXT",
                "narrow tokenize --help has examples");
  }
  const llm::Tokenizer tokenizer(llm::read_model_tokenizer(flags.model));
  const std::vector<Ids> all = encode(tokenizer, flags);
  if (context.json) {
    return context.print(json_text(flags.by_line ? Json{{"lines", all}} : Json{{"ids", all[0]}}),
                         "");
  }
  context.print("", text_of(tokenizer, all, flags.by_line));
}

}  // namespace

void add_tokenize(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("tokenize", "Turn text into the ids of a language model's vocabulary");
  auto flags = std::make_shared<TokenizeFlags>();
  command
      ->add_option("model", flags->model,
                   "Folder of a model, .gguf file, tokenizer.json or tokenizer.model")
      ->type_name("MODEL")
      ->required();
  command->add_option("--input", flags->input, "The text")->type_name("FILE");
  command->add_option("--text", flags->text, "The text itself")->type_name("TEXT");
  command->add_flag("--by-line", flags->by_line, "Each line is a text of its own");
  command->add_flag("--no-special", flags->no_special,
                    "Without what the model puts around a text (bos, eos, cls, sep)");
  command->add_flag("--parse-special", flags->parse_special,
                    "Find special tokens in the text; otherwise \"</s>\" there is four characters");
  add_common_options(*command, context);
  command->footer(kExamples);
  command->callback(
      [flags, &context] { context.run = [flags, &context] { run_tokenize(*flags, context); }; });
}

}  // namespace narrow::cli
