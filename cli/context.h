// SPDX-License-Identifier: Apache-2.0
// What the commands share: flags that all have, results on stdout, progress on stderr, Ctrl-C.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "narrow/core/progress.h"

namespace narrow::cli {

/// Keys stay in the order in which they were added.
using Json = nlohmann::ordered_json;

struct Context {
  bool json = false;
  int64_t threads = 0;  // 0: all CPUs of the affinity mask
  std::string isa;
  std::string command_line;   // as typed, quoted for a shell
  bool printed_json = false;  // the one object is out: an error adds none
  std::function<void()> run;  // the chosen command, set while parsing

  int thread_count() const { return static_cast<int>(threads); }
  /// Prints one of them; throws io_error when stdout cannot take it.
  void print(const std::string& json_text, const std::string& plain_text);
};

/// --json, --threads, --isa.
void add_common_options(CLI::App& command, Context& context);

/// Numbers within limits, finite, no leftovers; what is wrong is a usage error naming the option.
CLI::Option* add_integer(CLI::App& command, const std::string& name, int64_t& value, int64_t low,
                         int64_t high, const std::string& help);
CLI::Option* add_number(CLI::App& command, const std::string& name, double& value, double low,
                        double high, const std::string& help);
/// One of the words; a wrong one is a usage error naming the nearest.
CLI::Option* add_choice(CLI::App& command, const std::string& name, std::string& value,
                        std::vector<std::string> words, const std::string& help);

/// Sends `text` to stdout and makes sure that it arrived.
void write_stdout(const std::string& text);
/// One line to stderr, after clearing a progress bar.
void write_stderr(const std::string& text);

/// One line; bytes that are no UTF-8 (names from hostile files) are replaced.
std::string json_text(const Json& json);
/// null for infinities and NaN, which JSON lacks.
Json json_number(double value);

/// Draws bars on stderr for stages of more than two seconds, on a terminal only, and asks the flag
/// that Ctrl-C sets. The object is shared by all commands.
Progress make_progress();
/// SIGINT and SIGTERM ask the work to stop; a second one ends the program at once.
void install_signal_handlers();

/// Word by word as a POSIX shell reads it back.
std::string shell_quoted(int argc, char** argv);

}  // namespace narrow::cli
