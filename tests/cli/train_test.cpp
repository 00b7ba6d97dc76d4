// SPDX-License-Identifier: Apache-2.0
// train through the program.
#include "cli/cli_testing.h"

namespace narrow {
namespace {

using namespace testing;

#ifdef NARROW_TRAIN_PLUGIN
constexpr bool kHaveLibrary = true;
#else
constexpr bool kHaveLibrary = false;
#endif

class Train : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kHaveLibrary) GTEST_SKIP() << "libtorch was not there when this was built";
    if (!have_fashion_data()) GTEST_SKIP() << "no dataset-fashion-mnist";
  }
  std::string data_ = fashion_data(",split=train,samples=600");
  std::string few_ = fashion_data(",samples=200");
  TemporaryFolder folder_;
};

TEST_F(Train, FromScratchToAQuantizedFile) {
  const std::string cnn = folder_.file("cnn.onnx");
  const Json made =
      narrow_json({"train", "--arch", "mnist_cnn", "-o", cnn, "--data", data_, "--eval-data", few_,
                   "--epochs", "2", "--log", folder_.file("log.csv")});
  EXPECT_EQ(made.at("parameters"), 421642);
  EXPECT_EQ(made.at("epochs").size(), 2);
  EXPECT_GT(made.at("metric"), 55.0);  // ten classes
  EXPECT_NE(bytes_of(folder_.file("log.csv")).find("\n2,"), std::string::npos);
  const std::string small = folder_.file("w4a4.onnx");
  const Json trained =
      narrow_json({"train", cnn, "-o", small, "--qat", "w4a4", "--loss", "distill", "--data", data_,
                   "--eval-data", few_, "--epochs", "1", "--lr", "1e-4"});
  EXPECT_EQ(trained.at("metric_before"), made.at("metric"));
  EXPECT_GT(trained.at("metric").get<double>(), made.at("metric").get<double>() - 8);
  EXPECT_LT(trained.at("output_bytes").get<double>(), 0.2 * made.at("output_bytes").get<double>());
  // The file that was written is the one that was measured, and nothing else is left.
  EXPECT_EQ(narrow_json({"eval", small, "--data", few_}).at("value"), trained.at("metric"));
  EXPECT_EQ(folder_.names(), (std::vector<std::string>{"cnn.onnx", "log.csv", "w4a4.onnx"}));
}

TEST_F(Train, SaysWhatIsWrong) {
  const std::string out = folder_.file("o.onnx");
  const auto refused = [&](std::vector<std::string> args, const char* part) {
    args.insert(args.begin(), "train");
    args.insert(args.end(), {"-o", out, "--data", data_});
    const Outcome r = narrow_program(args);
    EXPECT_NE(r.code, 0);
    EXPECT_NE(r.err.find(part), std::string::npos) << r.err;
  };
  refused({}, "--arch");
  refused({fashion_model(), "--arch", "mnist_cnn"}, "--arch");
  refused({fashion_model(), "--qat", "w1a4"}, "w1a4");
  refused({fashion_model(), "--qat", "int8"}, "int8");
  refused({"--arch", "mnist_cnm"}, "mnist_cnn");
  refused({folder_.file("none.onnx")}, "none.onnx");
  refused({fashion_model(), "--lr", "1e9"}, "--lr");
  refused({fashion_model(), "--resume"}, "o.onnx.training");
}

TEST(TrainWithoutLibrary, SaysHowToGetIt) {
  TemporaryFolder folder;
  const Outcome r =
      narrow_program({"train", "--arch", "mnist_cnn", "-o", folder.file("o.onnx"), "--data",
                      "mnist:" + folder.path().string()},
                     {.environment = {{"NARROW_TRAIN_LIBRARY", folder.file("none.so")}}});
  EXPECT_EQ(r.code, 4);
  EXPECT_NE(r.err.find("libtorch-dev"), std::string::npos) << r.err;
}

}  // namespace
}  // namespace narrow
