// SPDX-License-Identifier: Apache-2.0
// What the program says when it is asked for help, or asked wrongly.
#include "cli/cli_testing.h"

namespace narrow {
namespace {

using namespace testing;

const std::vector<std::string> kCommands = {"inspect", "run",   "eval",    "quantize",
                                            "compare", "bench", "kernels", "tokenize"};

TEST(Usage, Version) {
  const Outcome outcome = narrow_program({"--version"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out.rfind("narrow ", 0), 0u) << outcome.out;
  EXPECT_EQ(outcome.err, "");
}

TEST(Usage, HelpNamesEveryCommand) {
  const Outcome outcome = narrow_program({"--help"});
  EXPECT_EQ(outcome.code, 0);
  for (const std::string& command : kCommands) expect_contains(outcome.out, "\n  " + command + " ");
}

TEST(Usage, EveryCommandHelpsWithExamplesAndCommonFlags) {
  for (const std::string& command : kCommands) {
    const Outcome outcome = narrow_program({command, "--help"});
    EXPECT_EQ(outcome.code, 0) << command;
    for (const char* piece : {"Examples:\n  narrow ", "--json", "--threads", "--isa"}) {
      expect_contains(outcome.out, piece);
    }
    expect_contains(outcome.out, "narrow " + command + " ");
  }
}

struct Mistake {
  std::vector<std::string> arguments;
  const char* error;  // a piece of the line
  const char* hint;   // likewise; "" for any or none
};

class UsageError : public ::testing::TestWithParam<Mistake> {};

TEST_P(UsageError, ExitsWithTwoAndSaysWhatIsWrong) {
  const Outcome outcome = narrow_program(GetParam().arguments);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err.rfind("error: ", 0), 0u) << outcome.err;
  expect_contains(outcome.err, GetParam().error);
  if (*GetParam().hint != '\0') expect_contains(outcome.err, "\nhint: ");
  expect_contains(outcome.err, GetParam().hint);
}

const std::string kModel = NARROW_SOURCE_DIR "/assets/fashion_cnn.onnx";

INSTANTIATE_TEST_SUITE_P(
    Cli, UsageError,
    ::testing::Values(
        Mistake{{}, "subcommand", "narrow --help"},
        Mistake{{"evla", "m.onnx"}, "'evla' is no command", "did you mean 'eval'?"},
        Mistake{{"inspekt"}, "'inspekt' is no command", "did you mean 'inspect'?"},
        Mistake{{"eval"}, "model is required", "narrow eval --help"},
        Mistake{{"eval", kModel}, "--data is required", "narrow eval --help"},
        Mistake{
            {"eval", kModel, "--dtaa", "x"}, "has no option '--dtaa'", "did you mean '--data'?"},
        Mistake{{"bench", kModel, "--bacth=3"}, "no option '--bacth'", "did you mean '--batch'?"},
        Mistake{{"quantize", kModel, "--obsever", "mse"}, "no option '--obsever'", "'--observer'"},
        Mistake{{"eval", kModel, "--data", "mnist:/d", "--data", "mnist:/d"},
                "--data is given 2 times",
                "narrow eval --help"},
        Mistake{{"bench", kModel, "--batch"}, "--batch: ", "narrow bench --help"},
        Mistake{{"inspect", kModel, "more"}, "not expected: more", ""},
        Mistake{{"bench", kModel, "--threads", "999999"}, "'999999' is no whole number", ""},
        Mistake{{"bench", kModel, "--threads", "-1"}, "'-1' is no whole number", ""},
        Mistake{{"bench", kModel, "--threads", "two"}, "'two' is no whole number", ""},
        Mistake{{"bench", kModel, "--threads", "1.5"}, "'1.5' is no whole number", ""},
        Mistake{{"bench", kModel, "--batch", "0"}, "--batch", ""},
        Mistake{{"bench", kModel, "--batch", "-3"}, "--batch", ""},
        Mistake{{"bench", kModel, "--streams", "0"}, "'0' is no whole number", ""},
        Mistake{{"bench", kModel, "--streams", "-2"}, "'-2' is no whole number", ""},
        Mistake{{"bench", kModel, "--streams", "1025"}, "'1025' is no whole number", "--help"},
        Mistake{{"bench", kModel, "--streams", "99999999999999999999"}, "--streams", ""},
        Mistake{{"bench", kModel, "--streams", "two"}, "'two' is no whole number", ""},
        Mistake{{"bench", kModel, "--streams"}, "--streams: ", "narrow bench --help"},
        Mistake{{"bench", kModel, "--streams", "2", "--profile"}, "excludes", ""},
        Mistake{{"bench", kModel, "--seconds", "nan"}, "'nan' is no number", ""},
        Mistake{{"bench", kModel, "--seconds", "inf"}, "'inf' is no number", ""},
        Mistake{{"bench", kModel, "--seconds", "-1"}, "'-1' is no number", ""},
        Mistake{{"bench", kModel, "--runs", "99999999999999999999"}, "--runs", ""},
        Mistake{{"kernels", kModel, "--isa", "avx3"}, "'avx3' is not possible", "--help"},
        Mistake{{"eval", kModel, "--data", "mnist:/d", "--metric", "topp1"},
                "did you mean 'top1'?",
                ""},
        Mistake{{"eval", kModel, "--data", "mnits:/d"},
                "'mnits' is no kind of data",
                "did you mean 'mnist'?"},
        Mistake{{"eval", kModel, "--data", "mnist:/d,scal=1"},
                "'scal' is no option of mnist data",
                "did you mean 'scale'?"},
        Mistake{{"eval", kModel, "--data", "mnist:/d", "--metric", "agreement"},
                "compares with a second model",
                "--reference MODEL"},
        Mistake{{"run", kModel}, "run needs inputs", "narrow bench"},
        Mistake{{"quantize"}, "needs a model", ""},
        Mistake{{"quantize", kModel}, "name of the file to write", "-o FILE.onnx"},
        Mistake{{"quantize", kModel, "-o", kModel}, "is the float model itself", "another name"},
        Mistake{{"quantize", kModel, "-o", "/tmp"}, "is a folder", "name a file"},
        Mistake{{"quantize", kModel, "-o", "/dev/null"}, "'/dev/null' is not a file", "device"},
        Mistake{
            {"quantize", kModel, "-o", "q.gguf"}, "'q.gguf' is no name of an ONNX file", "onnx"},
        Mistake{{"tokenize", kModel}, "tokenize takes one text", "narrow tokenize --help"},
        Mistake{{"tokenize", kModel, "--text", "a", "--input", "b"}, "tokenize takes one text", ""},
        Mistake{{"bench", kModel, "--batch", "2", "--input", "x.npz"}, "excludes", ""},
        Mistake{{"quantize", kModel, "-o", "q.onnx", "--calibration-samples", "-5"}, "'-5'", ""},
        Mistake{{"quantize", kModel, "-o", "q.onnx", "--max-drop", "nan"}, "'nan'", ""},
        Mistake{{"quantize", kModel, "-o", "q.onnx", "--weights", "int9"}, "'int9'", ""}));

TEST(Usage, MissingFilesExitWithThree) {
  const TemporaryFolder folder;
  for (const std::string& command : kCommands) {
    std::vector<std::string> arguments = {command, "/nonexistent/m.onnx"};
    if (command == "compare") arguments.push_back("/nonexistent/n.onnx");
    if (command == "compare" || command == "eval") {
      arguments.insert(arguments.end(), {"--data", "mnist:/d"});
    }
    if (command == "tokenize") arguments.insert(arguments.end(), {"--text", "x"});
    if (command == "quantize")
      arguments.insert(arguments.end(), {"-o", folder.file("q"), "--mode", "dynamic"});
    const Outcome outcome = narrow_program(arguments);
    EXPECT_EQ(outcome.code, 3) << command << ": " << outcome.err;
    expect_contains(outcome.err, "error: ");
    expect_contains(outcome.err, "/nonexistent/m.onnx");
  }
}

TEST(Usage, ErrorsAreJsonWhenAskedFor) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"inspect", "/nonexistent", "--json"},
        {"--json", "inspect"},
        {"bench", kModel, "--json", "--threads", "x"}}) {
    const Outcome outcome = narrow_program(arguments);
    EXPECT_NE(outcome.code, 0);
    const Json json = Json::parse(outcome.out, nullptr, false);
    ASSERT_TRUE(json.is_object()) << outcome.out;
    EXPECT_FALSE(json.at("error").at("message").get<std::string>().empty());
    expect_contains(outcome.err, "error: ");
  }
}

TEST(Usage, ModelsThatAreNone) {
  const TemporaryFolder folder;
  const std::string whole = bytes_of(kModel);
  write_file(folder.file("empty.onnx"), "");
  write_file(folder.file("text.onnx"), "this is no model at all");
  write_file(folder.file("cut.onnx"), whole.substr(0, whole.size() / 2));
  for (const char* name : {"empty.onnx", "text.onnx", "cut.onnx"}) {
    const Outcome outcome = narrow_program({"inspect", folder.file(name)});
    EXPECT_EQ(outcome.code, 3) << name << ": " << outcome.err;
    expect_contains(outcome.err, name);
  }
  EXPECT_NE(narrow_program({"inspect", folder.path().string()}).code, 0);
}

TEST(Usage, AFileThatIsNoGgufIsNamedOnce) {
  const TemporaryFolder folder;
  const std::string file = folder.file("text.gguf");
  write_file(file, "this is no model at all");
  const Outcome outcome = narrow_program({"convert", file, "-o", folder.file("o.gguf")});
  EXPECT_EQ(outcome.code, 3);
  const size_t first = outcome.err.find(file);
  ASSERT_NE(first, std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.err.find(file, first + 1), std::string::npos) << outcome.err;
}

TEST(Usage, InstructionSetOfTheEnvironment) {
  const Outcome unknown =
      narrow_program({"kernels", kModel}, {.environment = {{"NARROW_ISA", "x"}}});
  EXPECT_EQ(unknown.code, 2);
  expect_contains(unknown.err, "NARROW_ISA names no instruction set: 'x'");
  const Outcome absent =
      narrow_program({"kernels", kModel}, {.environment = {{"NARROW_ISA", "neon_i8mm"}}});
#if defined(__x86_64__)
  EXPECT_EQ(absent.code, 4);
  expect_contains(absent.err, "this CPU lacks");
#endif
}

TEST(Usage, AFullStdoutIsAnError) {
  const Outcome outcome = narrow_program({"inspect", kModel}, {.stdout_path = "/dev/full"});
  EXPECT_EQ(outcome.code, 3);
  expect_contains(outcome.err, "cannot write to standard output");
}

}  // namespace
}  // namespace narrow
