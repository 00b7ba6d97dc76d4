// SPDX-License-Identifier: Apache-2.0
#include "context.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "narrow/core/cpu.h"
#include "narrow/core/error.h"
#include "narrow/core/suggest.h"
#include "progress_bar.h"

namespace narrow::cli {
namespace {

// Beyond any machine of one socket; stops a slip of the fingers from starting a million threads.
constexpr int64_t kMostThreads = 1024;

template <class T>
bool parse_all(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end && !text.empty();
}

}  // namespace

void Context::print(const std::string& json_line, const std::string& plain_text) {
  if (json) {
    write_stdout(json_line.ends_with('\n') ? json_line : json_line + "\n");
    printed_json = true;
  } else {
    write_stdout(plain_text);
  }
}

void add_common_options(CLI::App& command, Context& context) {
  command.add_flag("--json", context.json, "Print one JSON object, nothing else");
  add_integer(command, "--threads", context.threads, 0, kMostThreads, "Threads; 0: all CPUs");
  std::vector<std::string> names;
  for (const Isa isa : supported_isas()) names.emplace_back(to_string(isa));
  add_choice(command, "--isa", context.isa, names, "Best instruction set to use (also NARROW_ISA)");
}

CLI::Option* add_integer(CLI::App& command, const std::string& name, int64_t& value, int64_t low,
                         int64_t high, const std::string& help) {
  auto* option = command.add_option_function<std::string>(
      name,
      [&value, low, high, name](const std::string& text) {
        int64_t parsed = 0;
        if (!parse_all(text, parsed) || parsed < low || parsed > high) {
          throw CLI::ValidationError(
              name, fmt::format("'{}' is no whole number from {} to {}", text, low, high));
        }
        value = parsed;
      },
      help);
  return option->type_name("N");
}

CLI::Option* add_number(CLI::App& command, const std::string& name, double& value, double low,
                        double high, const std::string& help) {
  auto* option = command.add_option_function<std::string>(
      name,
      [&value, low, high, name](const std::string& text) {
        double parsed = 0;
        // Written so that NaN, which compares false, is refused.
        if (!parse_all(text, parsed) || !(parsed >= low) || !(parsed <= high)) {
          throw CLI::ValidationError(
              name, fmt::format("'{}' is no number from {} to {}", text, low, high));
        }
        value = parsed;
      },
      help);
  return option->type_name("X");
}

CLI::Option* add_choice(CLI::App& command, const std::string& name, std::string& value,
                        std::vector<std::string> words, const std::string& help) {
  const std::string type = fmt::format("{}", fmt::join(words, "|"));
  auto* option = command.add_option_function<std::string>(
      name,
      [&value, words = std::move(words), name](const std::string& text) {
        if (std::find(words.begin(), words.end(), text) == words.end()) {
          throw CLI::ValidationError(
              name, fmt::format("'{}' is not possible; {}", text, did_you_mean(text, words)));
        }
        value = text;
      },
      help);
  return option->type_name(type);
}

void write_stdout(const std::string& text) {
  clear_progress_bar();
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0) {
    throw Error(ErrorCode::io_error,
                fmt::format("cannot write to standard output: {}", std::strerror(errno)));
  }
}

void write_stderr(const std::string& text) {
  clear_progress_bar();
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fputc('\n', stderr);
}

std::string json_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json json_number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

std::string shell_quoted(int argc, char** argv) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  std::string out;
  for (int i = 0; i < argc; ++i) {
    const std::string word = argv[i];
    if (i > 0) out += ' ';
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
      out += word;
      continue;
    }
    out += '\'';
    for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    out += '\'';
  }
  return out;
}

}  // namespace narrow::cli
