// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstring>
#include <new>

#include "commands.h"
#include "narrow/core/cpu.h"
#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "narrow/core/version.h"
#include "narrow/report/results.h"

namespace narrow::cli {
namespace {

constexpr const char* kFooter =
    "\nDATA is one grammar for every command: mnist:DIR, cifar10:DIR, images:DIR, npz:FILE, with\n"
    "options behind commas; see docs/data.md.\n"
    "\nExit codes: 0 ok, 1 quality below target, 2 usage, 3 bad input or resources, 4 "
    "unsupported,\n"
    "5 internal error, 130 cancelled.\n";

using AddCommand = void (*)(CLI::App&, Context&);
constexpr AddCommand kCommands[] = {add_inspect,  add_run,        add_eval,       add_quantize,
                                    add_compare,  add_bench,      add_kernels,    add_convert,
                                    add_tokenize, add_perplexity, add_generate,   add_calibrate,
                                    add_embed,    add_train,      add_sensitivity};

/// The flags of a command as a user types them.
std::vector<std::string> flags_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

/// What CLI11 found wrong, with the nearest known word where one was unknown.
Error usage_error(const CLI::App& app, const CLI::ParseError& e) {
  const auto chosen = app.get_subcommands();
  const CLI::App& command = chosen.empty() ? app : *chosen.front();
  const std::string name = chosen.empty() ? "narrow" : "narrow " + command.get_name();
  std::string hint = fmt::format("{} --help lists what it takes", name);
  // An unknown word is the cause of "required" errors too: --dtaa leaves --data out.
  const bool by_words = dynamic_cast<const CLI::ExtrasError*>(&e) != nullptr ||
                        dynamic_cast<const CLI::RequiredError*>(&e) != nullptr;
  for (const std::string& word : by_words ? app.remaining(true) : std::vector<std::string>{}) {
    if (chosen.empty() && !word.starts_with('-')) {
      std::vector<std::string> names;
      for (const CLI::App* sub : app.get_subcommands({})) names.push_back(sub->get_name());
      return {ErrorCode::invalid_argument, fmt::format("'{}' is no command", word),
              did_you_mean(word, names)};
    }
    if (!word.starts_with("--")) continue;
    const std::string flag = word.substr(0, word.find('='));
    const std::string near = closest_name(flag, flags_of(command));
    if (!near.empty()) hint = fmt::format("did you mean '{}'? {}", near, hint);
    return {ErrorCode::invalid_argument, fmt::format("{} has no option '{}'", name, flag), hint};
  }
  // CLI11 says "At Most 1 required but received 2".
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_items_expected_max() == 1 && option->count() > 1) {
      return {ErrorCode::invalid_argument,
              fmt::format("{} is given {} times", option->get_name(), option->count()), hint};
    }
  }
  return {ErrorCode::invalid_argument, e.what(), hint};
}

int report_error(Context& context, const Error& error) {
  write_stderr(fmt::format("error: {}", error.what()));
  if (!error.hint().empty()) write_stderr(fmt::format("hint: {}", error.hint()));
  if (context.json && !context.printed_json) {
    try {
      write_stdout(to_json(error) + "\n");
    } catch (const Error&) {  // stdout is what failed
    }
  }
  return exit_code(error.code());
}

/// Before parsing fails, --json has not been seen.
bool asks_for_json(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) return true;
  }
  return false;
}

int parse_and_run(int argc, char** argv, Context& context) {
  CLI::App app("Makes trained networks small and fast, and says what that cost", "narrow");
  app.set_version_flag("--version", fmt::format("narrow {}", kVersion));
  app.footer(kFooter);
  app.require_subcommand(1);
  for (const AddCommand add : kCommands) add(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    return report_error(context, usage_error(app, e));
  }
  if (!context.isa.empty()) set_isa(*isa_from_string(context.isa));
  (void)active_isa();  // a wrong NARROW_ISA is an error whatever the command
  context.run();
  return 0;
}

int guarded_main(int argc, char** argv) {
  Context context;
  context.json = asks_for_json(argc, argv);
  context.command_line = shell_quoted(argc, argv);
  install_signal_handlers();
  try {
    return parse_and_run(argc, argv, context);
  } catch (const Error& e) {
    return report_error(context, e);
  } catch (const std::bad_alloc&) {
    return report_error(context, Error(ErrorCode::resource_exhausted, "out of memory"));
  } catch (const std::exception& e) {
    return report_error(context, Error(ErrorCode::internal, e.what(), "please report this"));
  }
}

}  // namespace
}  // namespace narrow::cli

int main(int argc, char** argv) {
  return narrow::cli::guarded_main(argc, argv);
}
