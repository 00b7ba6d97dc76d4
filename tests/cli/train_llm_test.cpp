// SPDX-License-Identifier: Apache-2.0
// Language models trained by the program from scratch, and what it refuses.
#include <cmath>

#include "cli/cli_testing.h"
#include "narrow/llm/checkpoint.h"

namespace narrow {
namespace {

using namespace testing;

class TrainLlmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kHaveLibrary) GTEST_SKIP() << "libtorch was not there when this was built";
    std::string text;
    for (int i = 0; i < 200; ++i) text += "The cat sat on the mat. ";
    write_file(folder_.path() / "text.txt", text);
  }
  std::vector<std::string> training(const std::string& arch, const std::string& output) const {
    return {"train",
            "--arch",
            arch,
            "--tokenizer",
            model_,
            "-o",
            folder_.file(output),
            "--data",
            "text:" + folder_.file("text.txt") + ",context=32",
            "--epochs",
            "6",
            "--lr",
            "1e-2",
            "--threads",
            "1"};
  }
  std::string model_ = NARROW_SOURCE_DIR "/assets/novels-7m";
  TemporaryFolder folder_;
};

TEST_F(TrainLlmTest, AModelFromScratchLearnsATextAndRuns) {
  const std::string arch = "llama(dim=32,layers=2,heads=4,kv_heads=2,ff=64,context=64)";
  const Json report = narrow_json(training(arch, "tiny.gguf"));
  EXPECT_LT(report.at("epochs").front().at("loss").get<double>(), std::log(4096.0));
  EXPECT_LT(report.at("epochs").back().at("loss").get<double>(), 0.5);
  const auto model = llm::Checkpoint::open(folder_.file("tiny.gguf"));
  EXPECT_EQ(model.config().kv_heads, 2);
  EXPECT_EQ(model.config().context, 64);
  const auto continued = [&](const std::string& file) {
    return narrow_json({"generate", folder_.file(file), "--prompt", "The cat", "--tokens", "8",
                        "--temperature", "0", "--threads", "1"})
        .at("text")
        .get<std::string>();
  };
  expect_contains(continued("tiny.gguf"), "sat on the mat.");
  narrow_json(training(arch, "tiny"));
  expect_contains(continued("tiny"), "sat on the mat.");
}

TEST_F(TrainLlmTest, SaysWhatIsWrong) {
  const auto refused = [&](const std::string& arch, const char* part) {
    const Outcome outcome = narrow_program(training(arch, "o.gguf"));
    EXPECT_NE(outcome.code, 0) << arch;
    expect_contains(outcome.err, part);
  };
  refused("llama", "no list of sizes");
  refused("llama(dim=32)", "layers is missing");
  refused("llama(dim=32,layer=2)", "did you mean 'layers'");
  refused("llama(dim=32,layers=2,heads=4,kv_heads=3)", "kv_heads=3");
  refused("llama(dim=65536,layers=1000)", "more than 4 G weights");
}

}  // namespace
}  // namespace narrow
