// SPDX-License-Identifier: Apache-2.0
#include "cli/cli_testing.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

extern char** environ;

namespace narrow::testing {
namespace {

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    // The tests decide these themselves.
    const std::string name = text.substr(0, text.find('='));
    if (added.count(name) == 0 && name != "NARROW_ISA" && name != "NARROW_THREADS") {
      out.push_back(text);
    }
  }
  for (const auto& [name, value] : added) out.push_back(name + "=" + value);
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const Options& options) {
  std::vector<std::string> words = {NARROW_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = merged_environment(options.environment);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const std::string out =
      options.stdout_path.empty() ? (folder_ / "out").string() : options.stdout_path;
  const std::string err = (folder_ / "err").string();
  constexpr int kCreate = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), kCreate, 0600);
  if (options.terminal >= 0) {
    posix_spawn_file_actions_adddup2(&actions, options.terminal, 2);
  } else {
    posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), kCreate, 0600);
  }
  const int error = ::posix_spawn(&pid_, NARROW_PROGRAM, &actions, nullptr, pointers(words).data(),
                                  pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(error, 0) << NARROW_PROGRAM;
}

Process::~Process() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

std::string Process::err_so_far() const {
  return bytes_of(folder_ / "err");
}

Outcome Process::wait() {
  Outcome outcome;
  int status = 0;
  if (::waitpid(pid_, &status, 0) == pid_) {
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  pid_ = -1;
  outcome.out = bytes_of(folder_ / "out");
  outcome.err = bytes_of(folder_ / "err");
  return outcome;
}

Outcome narrow_program(const std::vector<std::string>& arguments, const Process::Options& options) {
  return Process(arguments, options).wait();
}

Json narrow_json(std::vector<std::string> arguments, const Process::Options& options) {
  arguments.emplace_back("--json");
  const Outcome outcome = narrow_program(arguments, options);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const Json json = Json::parse(outcome.out, nullptr, false);
  EXPECT_TRUE(json.is_object()) << outcome.out;
  return json.is_object() ? json : Json::object();
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

void expect_contains(const std::string& text, const std::string& piece) {
  EXPECT_NE(text.find(piece), std::string::npos) << '"' << text << "\" lacks \"" << piece << '"';
}

std::string fashion_model() {
  return NARROW_SOURCE_DIR "/assets/fashion_cnn.onnx";
}

bool have_fashion_data() {
  return std::filesystem::exists("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz");
}

std::string fashion_data(const std::string& options) {
  return "mnist:/usr/share/datasets/fashion-mnist" + options;
}

TEST(CliTesting, TheProgramIsThere) {
  EXPECT_TRUE(std::filesystem::exists(NARROW_PROGRAM));
}

}  // namespace narrow::testing
