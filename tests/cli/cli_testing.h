// SPDX-License-Identifier: Apache-2.0
// Runs the real program and keeps what it said.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support.h"

namespace narrow::testing {

using Json = nlohmann::json;

/// Whether libnarrow_train.so was built beside the program.
#ifdef NARROW_TRAIN_PLUGIN
inline constexpr bool kHaveLibrary = true;
#else
inline constexpr bool kHaveLibrary = false;
#endif

struct Outcome {
  int code = -1;  // 128 + signal if one ended it
  std::string out;
  std::string err;
};

/// A program that has been started, its stdout and stderr going to files (or a terminal).
class Process {
 public:
  struct Options {
    std::map<std::string, std::string> environment;  // added to the test's own
    std::string stdout_path;                         // empty: kept for the outcome
    int terminal = -1;                               // stderr goes to this descriptor instead
  };
  explicit Process(const std::vector<std::string>& arguments) : Process(arguments, Options{}) {}
  Process(const std::vector<std::string>& arguments, const Options& options);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  std::string err_so_far() const;
  Outcome wait();

 private:
  TemporaryFolder folder_;
  pid_t pid_ = -1;
};

/// narrow with these arguments.
Outcome narrow_program(const std::vector<std::string>& arguments,
                       const Process::Options& options = {});
/// The same with --json; expects success and that stdout is one JSON object and nothing else.
Json narrow_json(std::vector<std::string> arguments, const Process::Options& options = {});

void write_file(const std::filesystem::path& path, const std::string& text);
void expect_contains(const std::string& text, const std::string& piece);

/// The network that comes with the project, and a few of its data as DATA; tests that need Debian's
/// Fashion-MNIST skip where it is absent.
std::string fashion_model();
bool have_fashion_data();
std::string fashion_data(const std::string& options);

}  // namespace narrow::testing
