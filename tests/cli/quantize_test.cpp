// SPDX-License-Identifier: Apache-2.0
// quantize, eval and compare: the main job through the program, and what stops it.
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "cli/cli_testing.h"

namespace narrow {
namespace {

using namespace testing;
using namespace std::chrono_literals;

std::string train() {
  return fashion_data(",split=train");
}
std::string few() {
  return fashion_data(",samples=200");
}

/// The network quantized once for all tests that only look at the result.
class Quantized : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!have_fashion_data()) return;
    folder_ = new TemporaryFolder;
    file_ = folder_->file("q.onnx");
    report_ = new Json(narrow_json({"quantize", fashion_model(), "-o", file_, "--data", train(),
                                    "--eval-data", few(), "--calibration-samples", "100"}));
  }
  static void TearDownTestSuite() {
    delete folder_;
    delete report_;
    folder_ = nullptr;
    report_ = nullptr;
  }
  void SetUp() override {
    if (!have_fashion_data()) GTEST_SKIP() << "no dataset-fashion-mnist";
  }
  static TemporaryFolder* folder_;
  static std::string file_;
  static Json* report_;
};
TemporaryFolder* Quantized::folder_ = nullptr;
std::string Quantized::file_;
Json* Quantized::report_ = nullptr;

TEST_F(Quantized, ReportsWhatItDid) {
  const Json& r = *report_;
  EXPECT_EQ(r.at("output"), file_);
  EXPECT_EQ(r.at("calibration_samples"), 100);
  EXPECT_EQ(r.at("verification").at("metric"), "top1");
  EXPECT_EQ(r.at("verification").at("samples"), 200);
  EXPECT_GT(r.at("verification").at("quantized"), 85.0);
  EXPECT_EQ(r.at("reloaded_identical"), true);
  EXPECT_EQ(folder_->names(), std::vector<std::string>{"q.onnx"}) << "nothing else is left";
}

TEST_F(Quantized, RunsOnIntegers) {
  const Json json = narrow_json({"inspect", file_});
  EXPECT_GE(json.at("integer_mac_fraction"), 0.99);
  EXPECT_EQ(json.at("plan").at("layers").at("integer"), 4);
  EXPECT_EQ(json.at("plan").at("layers").at("float"), 0);
  const Json& proofs = json.at("plan").at("overflow_proof");
  ASSERT_EQ(proofs.size(), 4u);
  for (const Json& proof : proofs) {
    EXPECT_EQ(proof.at("fits_int32"), true);
    EXPECT_LT(proof.at("accumulator_min"), proof.at("accumulator_max"));
    EXPECT_GT(proof.at("headroom_bits"), 0.0);
  }
  EXPECT_LE(json.at("file_bytes").get<double>(),
            0.26 * static_cast<double>(std::filesystem::file_size(fashion_model())));
  EXPECT_EQ(json.at("metadata").count("narrow.recipe"), 1u);
}

TEST_F(Quantized, EvalGivesTheReportedFigure) {
  const Json json = narrow_json({"eval", file_, "--data", few(), "--metric", "top1"});
  EXPECT_EQ(json.at("metric"), "top1");
  EXPECT_EQ(json.at("samples"), 200);
  EXPECT_EQ(json.at("value"), report_->at("verification").at("quantized"));
  for (const char* threads : {"1", "3"}) {
    EXPECT_EQ(narrow_json({"eval", file_, "--data", few(), "--threads", threads}).at("value"),
              json.at("value"));
  }
  const Json reference = narrow_json({"eval", file_, "--data", fashion_data(",samples=40"),
                                      "--metric", "agreement", "--reference", fashion_model()});
  EXPECT_GE(reference.at("value"), 90.0);
  EXPECT_EQ(narrow_json({"eval", file_, "--data", fashion_data(",samples=40"), "--metric",
                         "agreement", "--reference", file_})
                .at("value"),
            100.0);
}

TEST_F(Quantized, CompareShowsLayers) {
  const Json json =
      narrow_json({"compare", fashion_model(), file_, "--data", fashion_data(",samples=64")});
  EXPECT_EQ(json.at("samples"), 64);
  EXPECT_GT(json.at("agreement"), 90.0);
  EXPECT_EQ(json.at("identical"), false);
  ASSERT_GE(json.at("layers").size(), 4u);
  for (const Json& layer : json.at("layers")) EXPECT_GT(layer.at("cosine"), 0.9) << layer;
  const Json same = narrow_json(
      {"compare", file_, file_, "--data", fashion_data(",samples=8"), "--layers", "none"});
  EXPECT_EQ(same.at("identical"), true);
  EXPECT_EQ(same.at("layers").size(), 0u);
}

TEST_F(Quantized, BenchGivesOneHashForAllThreadsAndInstructionSets) {
  const auto hash = [&](const char* threads, const char* isa) {
    return narrow_json(
               {"bench", file_, "--runs", "2", "--threads", threads, "--isa", isa, "--batch", "3"})
        .at("output_hash");
  };
  const Json best = narrow_json({"bench", file_, "--runs", "2", "--batch", "3"});
  EXPECT_GE(best.at("integer_mac_fraction"), 0.99);
  // The last layer is float (LogSoftmax) and plain, so that even it does not differ.
  EXPECT_EQ(hash("1", "scalar"), best.at("output_hash"));
  EXPECT_EQ(hash("2", "scalar"), best.at("output_hash"));
}

TEST_F(Quantized, SameJobSameBytes) {
  for (const char* threads : {"1", "2"}) {
    const std::string again = folder_->file(std::string("again") + threads + ".onnx");
    const Outcome outcome =
        narrow_program({"quantize", fashion_model(), "-o", again, "--data", train(), "--eval-data",
                        few(), "--calibration-samples", "100", "--threads", threads});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(bytes_of(again) == bytes_of(file_)) << threads << " threads";
    std::filesystem::remove(again);
  }
}

TEST_F(Quantized, RecipeEqualsFlags) {
  const TemporaryFolder folder;
  const std::vector<std::string> flags = {
      "--data",     train(),      "--eval-data", few(),       "--calibration-samples",
      "50",         "--observer", "percentile",  "--exclude", "/fc2/*,/Flatten",
      "--max-drop", "5"};
  std::vector<std::string> dump = {"quantize", "--dump-recipe"};
  dump.insert(dump.end(), flags.begin(), flags.end());
  const Outcome dumped = narrow_program(dump);
  ASSERT_EQ(dumped.code, 0) << dumped.err;
  write_file(folder.file("r.yaml"), dumped.out);
  const Outcome again =
      narrow_program({"quantize", "--dump-recipe", "--recipe", folder.file("r.yaml")});
  EXPECT_EQ(again.out, dumped.out);
  std::vector<std::string> by_flags = {"quantize", fashion_model(), "-o", folder.file("a.onnx")};
  by_flags.insert(by_flags.end(), flags.begin(), flags.end());
  ASSERT_EQ(narrow_program(by_flags).code, 0);
  ASSERT_EQ(narrow_program({"quantize", fashion_model(), "-o", folder.file("b.onnx"), "--recipe",
                            folder.file("r.yaml")})
                .code,
            0);
  EXPECT_TRUE(bytes_of(folder.file("a.onnx")) == bytes_of(folder.file("b.onnx")));
  const Json json = narrow_json({"inspect", folder.file("a.onnx")});
  EXPECT_EQ(json.at("plan").at("layers").at("float"), 1) << "/fc2 is excluded";
}

TEST(RecipeFlags, ChangeWhatTheFileSays) {
  const TemporaryFolder folder;
  write_file(folder.file("r.yaml"), "equalize: true\nseed: 3\nexclude: [a]\n");
  const auto dump = [&](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"quantize", "--dump-recipe", "--recipe", folder.file("r.yaml")});
    const Outcome outcome = narrow_program(flags);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out;
  };
  EXPECT_EQ(dump({}), "equalize: true\nseed: 3\nexclude: [a]\n");
  EXPECT_EQ(dump({"--equalize"}), dump({}));
  EXPECT_EQ(dump({"--equalize=false", "--seed", "1"}), "exclude: [a]\n");
  EXPECT_EQ(dump({"--integer-only", "--exclude", "b,c", "--exclude", "d"}),
            "equalize: true\nseed: 3\nexclude: [a, b, c, d]\ninteger_only: true\n");
  EXPECT_EQ(narrow_program({"quantize", "--dump-recipe", "--equalize=perhaps"}).code, 2);
}

TEST_F(Quantized, AGateThatFailsWritesNothing) {
  const TemporaryFolder folder;
  write_file(folder.file("q.onnx"), "the old file");
  const Outcome outcome = narrow_program(
      {"quantize", fashion_model(), "-o", folder.file("q.onnx"), "--data", train(), "--eval-data",
       fashion_data(",samples=60"), "--weights", "int2", "--activations", "uint2", "--max-drop",
       "0.5", "--calibration-samples", "20", "--json"});
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  expect_contains(outcome.err, "error: ");
  expect_contains(outcome.err, "worst layers: '");
  const Json json = Json::parse(outcome.out, nullptr, false);
  ASSERT_TRUE(json.is_object()) << outcome.out;
  EXPECT_FALSE(json.at("refusal").at("reason").get<std::string>().empty());
  EXPECT_EQ(json.at("output"), "");
  EXPECT_EQ(bytes_of(folder.file("q.onnx")), "the old file");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"q.onnx"});
}

TEST_F(Quantized, ASuggestedRerunWorks) {
  const TemporaryFolder folder;
  // Two bits with one scale per layer ruin the first layer: keeping it float is the cure.
  const Outcome refused =
      narrow_program({"quantize", fashion_model(), "-o", folder.file("q.onnx"), "--data", train(),
                      "--eval-data", few(), "--weights", "int2", "--granularity", "per_tensor",
                      "--max-drop", "2", "--calibration-samples", "50"});
  ASSERT_EQ(refused.code, 1) << refused.err;
  const std::string mark = "rerun with: ";
  const size_t at = refused.err.find(mark);
  ASSERT_NE(at, std::string::npos) << refused.err;
  std::string command = refused.err.substr(at + mark.size());
  command = command.substr(0, command.find('\n'));
  expect_contains(command, "--keep-float ");
  EXPECT_EQ(::system((command + " > /dev/null 2>&1").c_str()), 0) << command;
  EXPECT_TRUE(std::filesystem::exists(folder.file("q.onnx")));
}

TEST(TemporaryData, GoWithTheirModel) {
  // What a run on a model past 2 GB leaves when it is killed, or refused after writing.
  const TemporaryFolder folder;
  write_file(folder.file("q.onnx.unverified.data"), "left");
  narrow_json({"quantize", fashion_model(), "-o", folder.file("q.onnx"), "--mode", "dynamic"});
  EXPECT_EQ(folder.names(), std::vector<std::string>{"q.onnx"});
}

TEST_F(Quantized, DryRunWritesNothing) {
  const TemporaryFolder folder;
  const Json json =
      narrow_json({"quantize", fashion_model(), "--dry-run", "--data", train(), "--eval-data",
                   few(), "--calibration-samples", "20", "-o", folder.file("q.onnx")});
  EXPECT_EQ(json.at("output"), "");
  EXPECT_TRUE(folder.names().empty());
}

TEST_F(Quantized, StatisticsAreReadBack) {
  const TemporaryFolder folder;
  const auto quantize = [&](const std::string& name, const std::vector<std::string>& flags) {
    std::vector<std::string> arguments = {"quantize",        fashion_model(), "-o",
                                          folder.file(name), "--eval-data",   few()};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Outcome outcome = narrow_program(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
  };
  const std::string statistics = folder.file("s.json");
  quantize("a.onnx",
           {"--data", train(), "--calibration-samples", "40", "--save-statistics", statistics});
  quantize("b.onnx",
           {"--data", train(), "--calibration-samples", "40", "--statistics", statistics});
  const Json same = narrow_json({"compare", folder.file("a.onnx"), folder.file("b.onnx"), "--data",
                                 fashion_data(",samples=16"), "--layers", "none"});
  EXPECT_EQ(same.at("identical"), true);
}

/// Waits until `done` or for a minute.
bool wait_until(const std::function<bool()>& done) {
  for (int i = 0; i < 600; ++i) {
    if (done()) return true;
    std::this_thread::sleep_for(100ms);
  }
  return false;
}

std::vector<std::string> long_job(const std::string& output) {
  return {"quantize",
          fashion_model(),
          "-o",
          output,
          "--data",
          train(),
          "--observer",
          "entropy",
          "--eval-data",
          train(),
          "--calibration-samples",
          "60000"};
}

TEST_F(Quantized, InterruptStopsCleanly) {
  const TemporaryFolder folder;
  write_file(folder.file("q.onnx"), "the old file");
  Process process(long_job(folder.file("q.onnx")));
  // Its first line on stderr comes when the files are open and the long work begins.
  ASSERT_TRUE(wait_until([&] { return !process.err_so_far().empty(); }));
  ::kill(process.pid(), SIGINT);
  const Outcome outcome = process.wait();
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  expect_contains(outcome.err, "stopped on request");
  EXPECT_EQ(outcome.err.find('\r'), std::string::npos) << "no bars but on a terminal";
  EXPECT_EQ(folder.names(), std::vector<std::string>{"q.onnx"});
  EXPECT_EQ(bytes_of(folder.file("q.onnx")), "the old file");
}

TEST_F(Quantized, ATerminalGetsABar) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0 || ::grantpt(terminal) != 0 || ::unlockpt(terminal) != 0) {
    GTEST_SKIP() << "no pseudo-terminals here";
  }
  const int other_side = ::open(::ptsname(terminal), O_RDWR | O_NOCTTY);
  ASSERT_GE(other_side, 0);
  const TemporaryFolder folder;
  Process::Options options;
  options.terminal = other_side;
  Process process(long_job(folder.file("q.onnx")), options);
  ::fcntl(terminal, F_SETFL, O_NONBLOCK);
  std::string seen;
  const bool drawn = wait_until([&] {
    char buffer[4096];
    for (ssize_t n = ::read(terminal, buffer, sizeof buffer); n > 0;
         n = ::read(terminal, buffer, sizeof buffer)) {
      seen.append(buffer, static_cast<size_t>(n));
    }
    return seen.find(" %  ") != std::string::npos;
  });
  EXPECT_TRUE(drawn) << seen;
  ::kill(process.pid(), SIGINT);
  EXPECT_EQ(process.wait().code, 130);
  ::close(other_side);
  ::close(terminal);
}

TEST_F(Quantized, AFullDiskLeavesTheOldFile) {
  const TemporaryFolder folder;
  const std::string disk = folder.file("disk");
  std::filesystem::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0) {
    GTEST_SKIP() << "may not mount a small file system here";
  }
  write_file(disk + "/q.onnx", "the old file");
  const Outcome outcome =
      narrow_program({"quantize", fashion_model(), "-o", disk + "/q.onnx", "--data", train(),
                      "--eval-data", few(), "--calibration-samples", "20"});
  EXPECT_EQ(outcome.code, 3) << outcome.err;
  expect_contains(outcome.err, "No space left");
  expect_contains(outcome.err, "hint: free some space");
  EXPECT_EQ(bytes_of(disk + "/q.onnx"), "the old file");
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(disk)) files += entry.exists();
  EXPECT_EQ(files, 1u);
  ::umount2(disk.c_str(), MNT_DETACH);
}

TEST_F(Quantized, KillLeavesTheOldFile) {
  const TemporaryFolder folder;
  write_file(folder.file("q.onnx"), "the old file");
  Process process(long_job(folder.file("q.onnx")));
  ASSERT_TRUE(wait_until([&] { return !process.err_so_far().empty(); }));
  ::kill(process.pid(), SIGKILL);
  EXPECT_EQ(process.wait().code, 128 + SIGKILL);
  EXPECT_EQ(bytes_of(folder.file("q.onnx")), "the old file");
}

}  // namespace
}  // namespace narrow
