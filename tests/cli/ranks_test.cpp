// SPDX-License-Identifier: Apache-2.0
// Several processes that train or collect statistics together.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "cli/cli_testing.h"
#include "narrow/formats/gguf/importance.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/graph.h"
#include "narrow/llm/checkpoint.h"

namespace narrow {
namespace {

using namespace testing;

/// Another port for every group, so that tests run beside each other.
std::string free_port() {
  static int next = 20000 + static_cast<int>(::getpid() * 7 % 20000);
  return std::to_string(next++);
}

std::unique_ptr<Process> start_rank(int rank, const std::string& port,
                                    const std::vector<std::string>& arguments) {
  Process::Options options;
  options.environment = {{"RANK", std::to_string(rank)},
                         {"WORLD_SIZE", "2"},
                         {"MASTER_ADDR", "127.0.0.1"},
                         {"MASTER_PORT", port}};
  return std::make_unique<Process>(arguments, options);
}

class RanksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kHaveLibrary) GTEST_SKIP() << "libtorch was not there when this was built";
  }

  std::vector<std::string> training(const std::string& arch, const std::string& output,
                                    const std::string& batch) const {
    std::vector<std::string> words = {"train"};
    if (model_.empty()) {
      words.insert(words.end(), {"--arch", arch});
    } else {
      words.insert(words.end(), model_.begin(), model_.end());
    }
    words.insert(words.end(),
                 {"-o", folder_.file(output), "--data", data_, "--batch", batch, "--epochs", "2",
                  "--optimizer", "sgd", "--lr", "0.02", "--threads", "1", "--json"});
    words.insert(words.end(), more_.begin(), more_.end());
    return words;
  }

  /// What rank 0 said; the other must have said nothing.
  Json both(const std::vector<std::string>& arguments) {
    const std::string port = free_port();
    const auto second = start_rank(1, port, arguments);
    const Outcome first = start_rank(0, port, arguments)->wait();
    const Outcome other = second->wait();
    EXPECT_EQ(first.code, 0) << first.err;
    EXPECT_EQ(other.code, 0) << other.err;
    EXPECT_EQ(other.out, "");
    return Json::parse(first.out);
  }

  double largest_difference(const std::string& a, const std::string& b) const {
    const Graph x = read_onnx(folder_.file(a));
    const Graph y = read_onnx(folder_.file(b));
    double worst = 0;
    for (const ValueId id : x.live_values()) {
      const Value& value = x.value(id);
      if (!value.is_constant() || value.dtype != DType::float32) continue;
      const std::vector<float> p = value.constant.to_floats();
      const std::vector<float> q = y.constant(*y.find_value(value.name))->to_floats();
      for (size_t i = 0; i < p.size(); ++i) {
        worst = std::max<double>(worst, std::fabs(static_cast<double>(p[i]) - q[i]));
      }
    }
    return worst;
  }

  std::vector<std::string> more_;
  std::vector<std::string> model_;  // and flags; empty: from scratch
  std::string data_ = fashion_data(",split=train,samples=203");
  TemporaryFolder folder_;
};

TEST_F(RanksTest, TwoEqualOneWithTwiceTheBatch) {
  if (!have_fashion_data()) GTEST_SKIP() << "no dataset-fashion-mnist";
  const auto compare = [&](const char* arch, double bound, double loss = 1e-3) {
    const Json one = narrow_json(training(arch, "one.onnx", "40"));
    const Json two = both(training(arch, "two.onnx", "20"));
    for (size_t i = 0; i < one.at("epochs").size(); ++i) {
      EXPECT_NEAR(one.at("epochs")[i].at("loss").get<double>(),
                  two.at("epochs")[i].at("loss").get<double>(), loss)
          << arch;
    }
    EXPECT_LT(largest_difference("one.onnx", "two.onnx"), bound) << arch;
  };
  // 203 samples: the last batch of an epoch has a sample for one rank and two for the other. Images
  // change by their place in the data, whoever takes them.
  more_ = {"--flip", "--shift", "2", "--crop", "3"};
  compare("mnist_cnn", 1e-4);
  more_.clear();
  // On a grid: learned scales go at the pace of the whole batch. A value at the edge between two
  // codes may fall to either side, which a loss of 1.2 shows in its third digit.
  const std::string cnn = folder_.file("one.onnx");
  std::filesystem::copy_file(cnn, folder_.file("cnn.onnx"));
  model_ = {folder_.file("cnn.onnx"), "--qat", "w4a4"};
  compare("", 2e-2, 1e-2);
  // Zero points too.
  model_.insert(model_.end(), {"--qat-method", "lsq_plus"});
  compare("", 2e-2, 1e-2);
  model_.resize(3);
  model_.insert(model_.end(), {"--ranges", "moving_average"});
  compare("", 2e-2, 1e-2);
  model_.clear();
  // Batch norms take their statistics from the samples of both. Sums in another order differ by
  // 2e-5 after a step, and such a network makes ten times as much of it in each further one.
  data_ = fashion_data(",split=train,samples=40");
  compare("resnet20", 1e-3);
}

TEST_F(RanksTest, AKilledRankEndsTheJobAndLeavesACheckpoint) {
  if (!have_fashion_data()) GTEST_SKIP() << "no dataset-fashion-mnist";
  std::vector<std::string> arguments = training("mnist_cnn", "killed.onnx", "20");
  arguments[10] = "1000";  // epochs
  const std::string port = free_port();
  const auto first = start_rank(0, port, arguments);
  const auto second = start_rank(1, port, arguments);
  const std::filesystem::path checkpoint = folder_.file("killed.onnx.training");
  for (int i = 0; i < 600 && !std::filesystem::exists(checkpoint); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ::kill(second->pid(), SIGKILL);
  second->wait();
  const Outcome left = first->wait();
  EXPECT_NE(left.code, 0);
  expect_contains(left.err, "another rank is gone");
  expect_contains(left.err, "--resume");
  EXPECT_FALSE(std::filesystem::exists(folder_.file("killed.onnx")));
  ASSERT_TRUE(std::filesystem::exists(checkpoint));
  // The checkpoint is of two ranks: one alone would train something else.
  arguments.push_back("--resume");
  const Outcome alone = narrow_program(arguments);
  EXPECT_NE(alone.code, 0);
}

TEST_F(RanksTest, ImportanceIsThatOfOneProcess) {
  const std::string model = NARROW_SOURCE_DIR "/assets/novels-7m";
  std::string text;
  for (int i = 0; i < 400; ++i) text += "Word number " + std::to_string(i) + " follows. ";
  write_file(folder_.path() / "text.txt", text);
  const std::vector<std::string> arguments = {"calibrate", model,
                                              "--data",    "text:" + folder_.file("text.txt"),
                                              "-o",        folder_.file("two.gguf"),
                                              "--context", "32",
                                              "--chunks",  "7",
                                              "--json"};
  std::vector<std::string> alone = arguments;
  alone[5] = folder_.file("one.gguf");
  narrow_json(alone);
  EXPECT_EQ(both(arguments).at("chunks"), 7);
  const ImportanceFile one = read_importance(folder_.path() / "one.gguf");
  const ImportanceFile two = read_importance(folder_.path() / "two.gguf");
  ASSERT_EQ(one.entries.size(), two.entries.size());
  for (const auto& [name, entry] : one.entries) {
    const ImportanceEntry& other = two.entries.at(name);
    EXPECT_EQ(entry.counts, other.counts) << name;
    for (size_t i = 0; i < entry.sums.size(); ++i) {
      ASSERT_NEAR(entry.sums[i], other.sums[i], 1e-5 * (1 + entry.sums[i])) << name;
    }
  }
}

TEST_F(RanksTest, VariablesThatMakeNoSenseAreNamed) {
  Process::Options options;
  options.environment = {{"WORLD_SIZE", "2"}, {"RANK", "2"}};
  const Outcome wrong = narrow_program(training("mnist_cnn", "x.onnx", "20"), options);
  EXPECT_NE(wrong.code, 0);
  expect_contains(wrong.err, "RANK is '2', not a number from 0 to 1");
  options.environment = {{"WORLD_SIZE", "two"}};
  expect_contains(narrow_program(training("mnist_cnn", "x.onnx", "20"), options).err,
                  "WORLD_SIZE is 'two'");
}

TEST_F(RanksTest, TwoTrainALanguageModelAsOneDoes) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += "Word number " + std::to_string(i) + " follows. ";
  write_file(folder_.path() / "text.txt", text);
  const std::string spec = "text:" + folder_.file("text.txt") + ",context=16";
  const auto words = [&](const std::string& output, const char* batch) {
    return std::vector<std::string>{"train",       NARROW_SOURCE_DIR "/assets/novels-7m",
                                    "-o",          folder_.file(output),
                                    "--data",      spec + ",tokens=65",
                                    "--batch",     batch,
                                    "--epochs",    "2",
                                    "--optimizer", "sgd",
                                    "--lr",        "0.01",
                                    "--threads",   "1",
                                    "--json"};
  };
  const Json one = narrow_json(words("one.gguf", "2"));
  const Json two = both(words("two.gguf", "1"));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(one.at("epochs")[i].at("loss").get<double>(),
                two.at("epochs")[i].at("loss").get<double>(), 1e-4);
  }
  const auto a = llm::Checkpoint::open(folder_.file("one.gguf"));
  const auto b = llm::Checkpoint::open(folder_.file("two.gguf"));
  for (const llm::CheckpointTensor& t : a.tensors()) {
    const std::vector<float> p = a.read(t.name).to_floats();
    const std::vector<float> q = b.read(t.name).to_floats();
    for (size_t i = 0; i < p.size(); ++i) ASSERT_NEAR(p[i], q[i], 1e-5) << t.name << " " << i;
  }
}

}  // namespace
}  // namespace narrow
