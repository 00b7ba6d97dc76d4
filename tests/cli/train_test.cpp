// SPDX-License-Identifier: Apache-2.0
// train through the program.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>

#include "cli/cli_testing.h"
#include "narrow/core/cpu.h"
#include "narrow/pipeline/train_keys.h"

namespace narrow {
namespace {

using namespace testing;

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
  EXPECT_EQ(made.at("parameters"), 1199882);
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

TEST_F(Train, PrunedWeightsAreZeroCodesOfTheFile) {
  const std::string sparse = folder_.file("sparse.onnx");
  const Json r = narrow_json({"train", fashion_model(), "-o", sparse, "--prune",
                              "magnitude,sparsity=0.8", "--qat", "w8a8", "--data", data_,
                              "--eval-data", few_, "--epochs", "1", "--lr", "1e-4"});
  const Json& prune = r.at("prune");
  EXPECT_GE(prune.at("zeros_percent").get<double>(), 79.99);
  EXPECT_EQ(prune.at("layers").size(), 4);
  EXPECT_LT(prune.at("deflated_bytes").get<double>(), 0.12 * prune.at("float_bytes").get<double>());
  EXPECT_GT(prune.at("after_us").get<double>(), 0);
  EXPECT_GT(r.at("metric"), r.at("metric_before").get<double>() - 6);
}

TEST_F(Train, PrunesWithoutTraining) {
  const std::string out = folder_.file("o.onnx");
  const Outcome r =
      narrow_program({"train", fashion_model(), "-o", out, "--prune",
                      "level,sparsity=0.5,layers=/fc*", "--data", data_, "--epochs", "0", "--json"},
                     {.environment = {{"NARROW_TRAIN_LIBRARY", folder_.file("none.so")}}});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json layers = Json::parse(r.out).at("prune").at("layers");
  for (const Json& layer : layers) {
    const bool dense = layer.at("op") == "Gemm";
    EXPECT_EQ(layer.at("zeros").get<int64_t>(), dense ? layer.at("weights").get<int64_t>() / 2 : 0)
        << layer;
  }
}

/// The textbook: define, train, quantize without data at run time, with calibration, and by
/// training; evaluate each. docs/from_pytorch.md has it for all of the data.
TEST_F(Train, TheTextbookFlow) {
  const std::string cnn = folder_.file("cnn.onnx");
  narrow_json({"train",       "--arch",
               "fashion_cnn", "-o",
               cnn,           "--data",
               data_,         "--eval-data",
               few_,          "--epochs",
               "2",           "--flip",
               "--shift",     "1",
               "--crop",      "2",
               "--log",       folder_.file("log.json"),
               "--plot",      folder_.file("curve.svg")});
  const Json log = Json::parse(bytes_of(folder_.file("log.json")));
  EXPECT_EQ(log.at("epochs").size(), 2);
  EXPECT_NE(bytes_of(folder_.file("curve.svg")).find("</svg>"), std::string::npos);
  const auto top1 = [&](const std::string& model) {
    return narrow_json({"eval", model, "--data", few_}).at("value").get<double>();
  };
  const double before = top1(cnn);
  EXPECT_GT(before, 45.0);  // ten classes
  const std::string fixed = folder_.file("static.onnx");
  narrow_json({"quantize", cnn, "-o", fixed, "--data", data_, "--calibration-samples", "100"});
  EXPECT_NEAR(top1(fixed), before, 4);
  const std::string dynamic = folder_.file("dynamic.onnx");
  narrow_json({"quantize", cnn, "-o", dynamic, "--mode", "dynamic"});
  EXPECT_NEAR(top1(dynamic), before, 4);
  const std::string trained = folder_.file("qat.onnx");
  narrow_json({"train", cnn, "-o", trained, "--qat", "w8a8", "--data", data_, "--epochs", "1"});
  EXPECT_GT(top1(trained), before - 4);
}

TEST_F(Train, AKilledRunGoesOnFromItsLastSteps) {
  const auto goes_on = [&](const std::vector<std::string>& what, const std::string& data) {
    const auto arguments = [&](const std::string& out) {
      std::vector<std::string> words = {"train", "-o", out, "--data", data, "--epochs", "2"};
      words.insert(words.end(), what.begin(), what.end());
      words.insert(words.end(), {"--batch", "20", "--lr", "1e-4", "--threads", "1"});
      words.insert(words.end(), {"--checkpoint-steps", "5"});
      return words;
    };
    const std::string whole = folder_.file("whole.onnx");
    narrow_json(arguments(whole));
    const std::string cut = folder_.file("cut.onnx");
    std::filesystem::remove(cut);
    {
      Process process(arguments(cut));
      while (!std::filesystem::exists(cut + ".training")) ::usleep(1000);
      ::kill(process.pid(), SIGKILL);
      EXPECT_EQ(process.wait().code, 128 + SIGKILL);
    }
    EXPECT_FALSE(std::filesystem::exists(cut));
    std::vector<std::string> again = arguments(cut);
    again.emplace_back("--resume");
    narrow_json(again);
    EXPECT_EQ(bytes_of(cut), bytes_of(whole));
  };
  goes_on({fashion_model(), "--qat", "w4a4"}, data_);
  if (cpu_multiplies_bfloat16()) {
    goes_on({fashion_model(), "--qat", "w4a4", "--compute", "bfloat16"}, data_);
  }
  goes_on({"--arch", "resnet20", "--norm-freeze", "1", "--norm-batches", "3", "--ema", "0.9"},
          fashion_data(",split=train,samples=300"));
}

TEST_F(Train, EveryWayToLearnAGrid) {
  const std::string out = folder_.file("o.onnx");
  const std::string some = fashion_data(",split=train,samples=100");
  const std::string judged = fashion_data(",samples=100");
  const std::vector<std::vector<std::string>> ways = {
      {"--qat-method", "lsq_plus"},
      {"--qat-method", "pact"},
      {"--qat-method", "dorefa"},
      {"--qat-method", "wrpn"},
      {"--ranges", "moving_average", "--freeze-step", "1"},
      {"--first-last", "8"},
      {"--granularity", "per_tensor"},
      {"--freeze-oscillating", "0.02"},
  };
  for (const auto& way : ways) {
    std::vector<std::string> arguments = {
        "train", fashion_model(), "-o", out,    "--data", some,          "--qat",
        "w4a4",  "--epochs",      "1",  "--lr", "1e-4",   "--eval-data", judged};
    arguments.insert(arguments.end(), way.begin(), way.end());
    const Json made = narrow_json(arguments);
    EXPECT_GT(made.at("metric"), 75.0) << way[1];
  }
}

/// The teacher calls its input otherwise.
TEST_F(Train, LayersLearnThoseOfATeacher) {
  const std::string out = folder_.file("o.onnx");
  const std::vector<std::string> common = {"train",
                                           "--arch",
                                           "mnist_cnn",
                                           "--teacher",
                                           fashion_model(),
                                           "--data",
                                           fashion_data(",split=train,samples=100"),
                                           "-o",
                                           out,
                                           "--epochs",
                                           "2",
                                           "--loss",
                                           "mse"};
  const auto loss_with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = common;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return narrow_json(arguments).at("epochs").at(1).at("loss").get<double>();
  };
  const double outputs = loss_with({});
  const double both = loss_with({"--match", "fc1=/fc1/Gemm", "--match-weight", "1000"});
  EXPECT_GT(both, outputs + 100);
  // What is matched does not come out.
  EXPECT_EQ(narrow_json({"inspect", out}).at("outputs").size(), 1);
}

TEST_F(Train, SaysWhatIsWrong) {
  const std::string out = folder_.file("o.onnx");
  const auto refused = [&](std::vector<std::string> args, const char* part) {
    args.insert(args.begin(), "train");
    if (std::ranges::find(args, "-o") == args.end()) args.insert(args.end(), {"-o", out});
    args.insert(args.end(), {"--data", data_});
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
  refused({fashion_model(), "--device", "gpu"}, "cuda:N");
  refused({fashion_model(), "--device", "cuda:99"}, "CUDA device");
  // Before anything is trained.
  const std::string nowhere = folder_.file("none/file");
  refused({fashion_model(), "--checkpoint", nowhere}, "make the folder first");
  refused({fashion_model(), "--log", nowhere}, "make the folder first");
  refused({fashion_model(), "--plot", nowhere}, "make the folder first");
  refused({fashion_model(), "--teacher", fashion_model()}, "--loss distill");
  refused({fashion_model(), "-o", folder_.file("o.gguf")}, "an ONNX file");
  refused({fashion_model(), "--resume"}, "o.onnx.training");
  refused({fashion_model(), "--qat", "w4a4", "--qat-method", "lsqq"}, "lsq_plus");
  refused({fashion_model(), "--epochs", "0"}, "epochs");
  refused({fashion_model(), "--qat", "w4a4", "--norm-freeze", "1"}, "--keep-norms");
  refused({fashion_model(), "--match", "/conv3/Conv"}, "/conv2/Conv");
  refused({fashion_model(), "--match", "/conv1/Conv=/fc1/Gemm"}, "more than channels");
  refused({fashion_model(), "--prune", "magnitud"}, "magnitude");
  refused({fashion_model(), "--prune", "level,layers=/fc3/Gemm", "--epochs", "0"}, "/fc1/Gemm");
}

/// What a phase of a schedule may say is what the command line may, but for what belongs to the
/// whole run.
TEST(TrainFlags, AreKeysOfSchedules) {
  const std::set<std::string> whole = {
      "arch", "output", "checkpoint", "resume",  "log", "plot",      "dry_run",    "threads",
      "json", "help",   "quiet",      "verbose", "isa", "tokenizer", "keep_norms", "device"};
  const std::string help = narrow_program({"train", "--help"}).out;
  const std::vector<std::string> known = train_keys();
  std::set<std::string> keys(known.begin(), known.end());
  const std::string docs = bytes_of(std::filesystem::path(NARROW_SOURCE_DIR) / "docs/schedules.md");
  for (const std::string& key : known) expect_contains(docs, "`" + key + "`");
  const std::string options = help.substr(0, help.find("Examples:"));
  std::set<std::string> flags;
  const std::regex flag("(?:^|[\n,]) *--([a-z][a-z-]*)");
  for (auto m = std::sregex_iterator(options.begin(), options.end(), flag);
       m != std::sregex_iterator(); ++m) {
    std::string name = (*m)[1];
    std::replace(name.begin(), name.end(), '-', '_');
    flags.insert(name);
    EXPECT_TRUE(keys.contains(name) || whole.contains(name)) << "--" << (*m)[1];
  }
  EXPECT_GT(flags.size(), 40);
  for (const std::string& key : keys) {
    // Keys without a flag.
    if (key == "min_factor") continue;
    EXPECT_TRUE(flags.contains(key)) << key;
  }
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
