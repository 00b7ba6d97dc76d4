// SPDX-License-Identifier: Apache-2.0
// Smaller networks through the program: filters removed, layers factored, phases, sensitivity.
#include <filesystem>
#include <fstream>

#include "cli/cli_testing.h"
#include "narrow/core/rng.h"
#include "narrow/data/npz.h"

namespace narrow {
namespace {

using namespace testing;

class Smaller : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!have_fashion_data()) GTEST_SKIP() << "no dataset-fashion-mnist";
  }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_.file(name)) << text;
  }
  std::string data_ = fashion_data(",split=train,samples=200");
  std::string few_ = fashion_data(",samples=100");
  TemporaryFolder folder_;
};

TEST_F(Smaller, FiltersGoWithoutTraining) {
  const std::string out = folder_.file("o.onnx");
  const Json r = narrow_json({"train", fashion_model(), "-o", out, "--thin", "l1,ratio=0.5",
                              "--low-rank", "ratio=0.5,layers=/fc1*", "--epochs", "0", "--data",
                              data_, "--eval-data", few_});
  const Json& thin = r.at("thinned").at(0);
  EXPECT_LT(thin.at("macs_after").get<double>(), 0.4 * thin.at("macs_before").get<double>());
  EXPECT_LE(thin.at("difference").get<double>(), 1e-6);
  EXPECT_EQ(thin.at("layers").size(), 3);  // the last keeps its ten classes
  EXPECT_EQ(thin.at("layers").at(0).at("after"), 16);
  const Json& factored = r.at("thinned").at(1);
  EXPECT_LT(factored.at("macs_after"), factored.at("macs_before"));
  EXPECT_EQ(narrow_json({"eval", out, "--data", few_}).at("value"), r.at("metric"));
}

TEST_F(Smaller, FiltersAreRankedByActivity) {
  const Json r =
      narrow_json({"train", fashion_model(), "-o", folder_.file("o.onnx"), "--thin",
                   "apoz,macs=0.6,align=1,samples=50", "--epochs", "0", "--data", data_});
  const Json& thin = r.at("thinned").at(0);
  const double share = thin.at("macs_after").get<double>() / thin.at("macs_before").get<double>();
  EXPECT_LE(share, 0.6);
  EXPECT_GT(share, 0.55);
}

TEST_F(Smaller, PhasesFollowEachOther) {
  if (!kHaveLibrary) GTEST_SKIP() << "libtorch was not there when this was built";
  const std::string out = folder_.file("o.onnx");
  const auto phases = [&](const std::string& last) {
    return "lr: 1e-4\n"
           "phases:\n"
           "  - name: thin\n"
           "    epochs: 1\n"
           "    thin: {method: taylor, macs: 0.5, samples: 100}\n"
           "    prune: {method: level, sparsity: 0.6}\n"
           "  - name: quantize\n"
           "    qat: w8a8\n"
           "    loss: distill\n"
           "    epochs: 1\n" +
           last;
  };
  const std::vector<std::string> command = {
      "train", fashion_model(), "-o", out,          "--data",
      data_,   "--eval-data",   few_, "--schedule", folder_.file("s.yaml")};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> all = command;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  write("s.yaml", phases(""));
  const Json plan = narrow_json(with({"--dry-run"}));
  EXPECT_EQ(plan.at("phases").size(), 2);
  EXPECT_EQ(plan.at("phases").at(0).at("layers").size(), 4);
  EXPECT_EQ(plan.at("phases").at(1).at("what"), "prune keep; qat w8a8");
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"s.yaml"});
  // The second phase fails; what the first made is still there.
  write("s.yaml", phases("    eval_data: mnist:/nowhere\n"));
  const auto told = with({"--log", folder_.file("l.csv"), "--plot", folder_.file("c.svg")});
  EXPECT_EQ(narrow_program(told).code, 3);
  EXPECT_EQ(folder_.names(),
            (std::vector<std::string>{"c.phase1.svg", "l.phase1.csv", "o.phase1.onnx", "s.yaml"}));
  std::filesystem::remove(folder_.file("l.phase1.csv"));
  std::filesystem::remove(folder_.file("c.phase1.svg"));
  write("s.yaml", phases(""));
  const Json r = narrow_json(with({"--resume"}));
  EXPECT_EQ(r.at("phases").at(0).at("resumed"), true);
  const Json& last = r.at("phases").at(1).at("report");
  EXPECT_GE(last.at("prune").at("zeros_percent").get<double>(), 59.9);
  EXPECT_EQ(narrow_json({"eval", out, "--data", few_}).at("value"), last.at("metric"));
  EXPECT_EQ(folder_.names(), (std::vector<std::string>{"o.onnx", "s.yaml"}));
  // Another first phase is another model.
  write("s.yaml", "phases:\n  - prune: {method: level, layers: [/conv3/Conv]}\n");
  const Outcome wrong = narrow_program(command);
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.err.find("/conv1/Conv"), std::string::npos) << wrong.err;
}

TEST_F(Smaller, SaysWhatIsWrong) {
  const auto refused = [&](std::vector<std::string> args, const char* part) {
    args.insert(args.begin(),
                {"train", fashion_model(), "-o", folder_.file("o.onnx"), "--data", data_});
    const Outcome r = narrow_program(args);
    EXPECT_EQ(r.code, 2) << r.err;
    EXPECT_NE(r.err.find(part), std::string::npos) << r.err;
  };
  refused({"--thin", "l1"}, "macs");
  refused({"--thin", "l1,macs=0.0011", "--epochs", "0"}, "cannot be reached");
  refused({"--thin", "taylor,ratio=0.5", "--epochs", "0"}, "--epochs");
  refused({"--low-rank", "energy=1,layers=/fc2*", "--epochs", "0"}, "smaller");
  refused({"--schedule", "cosin"}, "cosine");
}

TEST_F(Smaller, SensitivityOfEachLayer) {
  const std::string svg = folder_.file("s.svg");
  const Json r = narrow_json({"sensitivity", fashion_model(), "--data", few_, "--by", "sparsity",
                              "--levels", "0.5,0.99", "-o", svg});
  EXPECT_EQ(r.at("metric"), "top1");
  ASSERT_EQ(r.at("layers").size(), 4);
  for (const Json& layer : r.at("layers")) {
    EXPECT_GE(layer.at("values").at(0).get<double>() + 3, layer.at("values").at(1).get<double>());
  }
  EXPECT_NE(bytes_of(svg).find("/fc1/Gemm"), std::string::npos);
  // Without labels: agreement with the model itself.
  Tensor images(DType::float32, {40, 1, 28, 28});
  Rng rng(1);
  for (float& v : images.mutable_data<float>()) v = static_cast<float>(rng.uniform());
  write_npz(folder_.file("x.npz"), {{"image", images}});
  const Json bits =
      narrow_json({"sensitivity", fashion_model(), "--data", "npz:" + folder_.file("x.npz"), "--by",
                   "bits", "--levels", "8", "--layers", "/conv*"});
  EXPECT_EQ(bits.at("metric"), "agreement");
  EXPECT_EQ(bits.at("reference"), 100.0);
  EXPECT_EQ(bits.at("layers").size(), 2);
  EXPECT_GE(bits.at("layers").at(0).at("values").at(0), 90.0);
  const auto refused = [&](std::vector<std::string> args, const char* part) {
    args.insert(args.begin(), {"sensitivity", fashion_model(), "--data", few_});
    const Outcome o = narrow_program(args);
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_NE(o.err.find(part), std::string::npos) << o.err;
  };
  refused({"--levels", "9"}, "2 to 8");
  refused({"--by", "sparsity", "--levels", "1"}, "below 1");
  refused({"--layers", "/fc3/Gemm"}, "/fc1/Gemm");
}

}  // namespace
}  // namespace narrow
