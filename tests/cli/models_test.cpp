// SPDX-License-Identifier: Apache-2.0
// inspect, kernels, run and bench on the network that comes with the project.
#include <cmath>
#include <set>

#include "cli/cli_testing.h"
#include "narrow/core/tensor.h"
#include "narrow/data/npz.h"
#include "narrow/formats/onnx/onnx.h"
#include "ptq/ptq_testing.h"

namespace narrow {
namespace {

using namespace testing;

std::string golden() {
  return NARROW_SOURCE_DIR "/tests/goldens/cli/fashion_run.npz";
}

/// Largest difference, as a part of the range of the reference.
double relative_error(const Tensor& got, const Tensor& reference) {
  const std::vector<float> a = got.to_floats();
  const std::vector<float> b = reference.to_floats();
  EXPECT_EQ(got.dims(), reference.dims());
  double largest = 0;
  double low = 1e30, high = -1e30;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(double{a[i]} - double{b[i]}));
    low = std::min(low, double{b[i]});
    high = std::max(high, double{b[i]});
  }
  return largest / (high - low);
}

/// The golden's input as files of several kinds.
class Run : public ::testing::Test {
 protected:
  Run() {
    auto arrays = read_npz(golden());
    image_ = arrays.at("image");
    expected_ = arrays.at("log_prob");
    write_npy(folder_.file("x.npy"), image_);
    write_npz(folder_.file("named.npz"), {{"image", image_}});
    write_npz(folder_.file("only.npz"), {{"anything", image_}});
    write_npz(folder_.file("several.npz"), {{"image", image_}, {"more", image_}});
  }
  Outcome run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"run", fashion_model(), "--output", out_});
    return narrow_program(arguments);
  }
  TemporaryFolder folder_;
  std::string out_ = folder_.file("out.npz");
  Tensor image_;
  Tensor expected_;
};

TEST_F(Run, EqualsOnnxruntime) {
  for (const std::string& input :
       {"image=" + folder_.file("x.npy"), folder_.file("x.npy"), folder_.file("named.npz"),
        folder_.file("only.npz"), "image=" + folder_.file("several.npz"),
        "image=" + folder_.file("only.npz")}) {
    std::filesystem::remove(out_);
    const Outcome outcome = run({"--input", input});
    ASSERT_EQ(outcome.code, 0) << input << ": " << outcome.err;
    expect_contains(outcome.out, "log_prob");
    // The project's bound for float: 1e-4 of the output's range.
    EXPECT_LE(relative_error(read_npz(out_).at("log_prob"), expected_), 1e-4) << input;
  }
}

TEST_F(Run, ReferenceAndThreadsGiveTheSame) {
  for (const std::vector<std::string>& flags : {std::vector<std::string>{"--compute", "reference"},
                                                {"--compute", "float"},
                                                {"--threads", "1"},
                                                {"--isa", "scalar"}}) {
    std::vector<std::string> arguments = {"--input", folder_.file("x.npy")};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Outcome outcome = run(arguments);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_LE(relative_error(read_npz(out_).at("log_prob"), expected_), 1e-4) << flags[0];
  }
}

TEST_F(Run, FolderOfTensors) {
  std::filesystem::create_directories(folder_.path() / "set");
  write_onnx_tensor(image_, "image", folder_.path() / "set/input_0.pb");
  ASSERT_EQ(run({"--inputs", folder_.file("set")}).code, 0);
  EXPECT_LE(relative_error(read_npz(out_).at("log_prob"), expected_), 1e-4);
  // By position where the name says nothing.
  write_onnx_tensor(image_, "other", folder_.path() / "set/input_0.pb");
  EXPECT_EQ(run({"--inputs", folder_.file("set")}).code, 0);
  write_onnx_tensor(image_, "more", folder_.path() / "set/input_1.pb");
  const Outcome surplus = run({"--inputs", folder_.file("set")});
  EXPECT_EQ(surplus.code, 2);
  expect_contains(surplus.err, "only 1 inputs");
  EXPECT_EQ(run({"--inputs", folder_.file("nothing")}).code, 3);
}

TEST_F(Run, JsonNamesOutputs) {
  const Json json =
      narrow_json({"run", fashion_model(), "--input", folder_.file("x.npy"), "--output", out_});
  ASSERT_EQ(json.at("outputs").size(), 1u);
  EXPECT_EQ(json.at("outputs")[0].at("name"), "log_prob");
  EXPECT_EQ(json.at("outputs")[0].at("shape"), Json({2, 10}));
  EXPECT_EQ(json.at("outputs")[0].at("not_finite"), 0);
  EXPECT_EQ(json.at("output"), out_);
  EXPECT_EQ(json.at("output_hash").get<std::string>().size(), 16u);
}

TEST_F(Run, MistakesAreNamed) {
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& piece) {
    const Outcome outcome = run(arguments);
    EXPECT_NE(outcome.code, 0);
    EXPECT_FALSE(std::filesystem::exists(out_));
    expect_contains(outcome.err, piece);
    return outcome.code;
  };
  const std::string x = folder_.file("x.npy");
  EXPECT_EQ(refused({"--input", "imge=" + x}, "did you mean 'image'?"), 2);
  EXPECT_EQ(refused({"--input", "image=" + x, "--input", "image=" + x}, "given twice"), 2);
  EXPECT_EQ(refused({"--input", folder_.file("several.npz")}, "no input 'more'"), 2);
  EXPECT_EQ(refused({"--input", "image=/nonexistent.npy"}, "/nonexistent.npy"), 3);
  EXPECT_EQ(refused({"--input", "image=" + fashion_model()}, "not a numpy array"), 3);
  write_npy(folder_.file("wrong.npy"), Tensor(DType::float32, {1, 3, 28, 28}));
  EXPECT_EQ(refused({"--input", folder_.file("wrong.npy")}, "image"), 2);
  write_npy(folder_.file("type.npy"), Tensor(DType::int32, {1, 1, 28, 28}));
  EXPECT_EQ(refused({"--input", folder_.file("type.npy")}, "int32"), 2);
}

TEST_F(Run, OutputNames) {
  const std::string x = folder_.file("x.npy");
  const std::string npy = folder_.file("y.npy");
  EXPECT_EQ(narrow_program({"run", fashion_model(), "--input", x, "-o", npy}).code, 0);
  EXPECT_LE(relative_error(read_npy(npy), expected_), 1e-4);
  const Outcome text = narrow_program({"run", fashion_model(), "--input", x, "-o", "y.txt"});
  EXPECT_EQ(text.code, 2);
  expect_contains(text.err, "neither .npz nor .npy");
  const Outcome folder =
      narrow_program({"run", fashion_model(), "--input", x, "-o", "/nonexistent/y.npz"});
  EXPECT_EQ(folder.code, 3);
  EXPECT_EQ(narrow_program({"run", fashion_model(), "--input", x}).code, 0);
}

TEST(Inspect, FloatModel) {
  const Json json = narrow_json({"inspect", fashion_model()});
  // conv 1-32-3, conv 32-64-3, fc 9216-128, fc 128-10 with biases.
  const int64_t parameters =
      (1 * 32 * 9 + 32) + (32 * 64 * 9 + 64) + (9216 * 128 + 128) + (128 * 10 + 10);
  EXPECT_EQ(json.at("parameters"), parameters);
  EXPECT_EQ(json.at("parameter_bytes"), 4 * parameters);
  EXPECT_EQ(json.at("file_bytes"), std::filesystem::file_size(fashion_model()));
  // 26 x 26 x 32 x 9, 24 x 24 x 64 x 288, and the two products.
  const int64_t macs = 26 * 26 * 32 * 9 + 24 * 24 * 64 * 288 + 9216 * 128 + 128 * 10;
  EXPECT_EQ(json.at("macs"), macs);
  EXPECT_EQ(json.at("integer_mac_fraction"), 0.0);
  EXPECT_EQ(json.at("ops").at("Conv"), 2);
  EXPECT_EQ(json.at("inputs")[0].at("name"), "image");
  EXPECT_EQ(json.at("outputs")[0].at("name"), "log_prob");
  EXPECT_EQ(json.at("opsets").at(""), 17);
  EXPECT_TRUE(json.at("plan_error").is_null());
  EXPECT_EQ(json.at("plan").at("layers").at("float"), 4);
  ASSERT_EQ(json.at("nodes").size(), 10u);
  EXPECT_EQ(json.at("nodes")[0].at("name"), "/conv1/Conv");
  EXPECT_EQ(json.at("nodes")[0].at("weights"), "float32[32, 1, 3, 3]");
  EXPECT_EQ(json.at("tensors")[0].at("bytes"), 4 * 9216 * 128);
  EXPECT_EQ(narrow_json({"inspect", fashion_model(), "--batch", "8"}).at("macs"), 8 * macs);
}

TEST(Inspect, TextHasTheSame) {
  const Outcome outcome = narrow_program({"inspect", fashion_model(), "--tensors", "1"});
  EXPECT_EQ(outcome.code, 0);
  for (const char* piece : {"1,199,882", "onnx 17", "Conv", "log_prob", "fc1.weight"}) {
    expect_contains(outcome.out, piece);
  }
  EXPECT_EQ(outcome.out.find("conv2.weight"), std::string::npos);
}

TEST(Inspect, UnknownOperatorsAreListed) {
  const TemporaryFolder folder;
  std::string model = bytes_of(fashion_model());
  // An operator of the same length that nobody has; the name stands in two nodes' op_type.
  size_t renamed = 0;
  for (size_t at = model.find("\x22\x04"
                              "Conv");
       at != std::string::npos; at = model.find("\x22\x04"
                                                "Conv",
                                                at + 1)) {
    model.replace(at + 2, 4, "Vonc");
    ++renamed;
  }
  ASSERT_EQ(renamed, 2u);
  write_file(folder.file("m.onnx"), model);
  const Json json = narrow_json({"inspect", folder.file("m.onnx")});
  EXPECT_EQ(json.at("unsupported").size(), 2u);
  EXPECT_TRUE(json.at("macs").is_null());
  expect_contains(json.at("plan_error"), "Vonc");
  const Outcome run = narrow_program({"kernels", folder.file("m.onnx")});
  EXPECT_EQ(run.code, 4);
  expect_contains(run.err, "/conv1/Conv");
  expect_contains(run.err, "/conv2/Conv");
}

TEST(Kernels, EveryNodeHasAnImplementation) {
  const Json json = narrow_json({"kernels", fashion_model()});
  EXPECT_GE(json.at("nodes").size(), 7u);
  for (const Json& node : json.at("nodes")) {
    EXPECT_FALSE(node.at("chosen").get<std::string>().empty()) << node;
    for (const Json& refused : node.at("refused")) {
      EXPECT_FALSE(refused.at("reason").get<std::string>().empty()) << node;
    }
  }
  const Json scalar = narrow_json({"kernels", fashion_model(), "--isa", "scalar"});
  EXPECT_EQ(scalar.at("isa"), "scalar");
  const Json reference = narrow_json({"kernels", fashion_model(), "--compute", "reference"});
  for (const Json& node : reference.at("nodes")) {
    if (node.at("op") == "Reorder") continue;
    expect_contains(node.at("chosen"), "reference");
  }
}

// oneDNN's convolutions without AVX add a residual from memory that is aligned by chance only.
TEST(Kernels, ResidualsWithoutAvxAreNotOneDnns) {
  SmallNet net;
  ValueId x = net.input({1, 16, 6, 6});
  for (const std::string name : {"one", "two", "three", "four"}) {
    const ValueId c = net.conv(name, x, 16, 16, {.pad = 1});
    x = net.op("Sigmoid", name + "_act", {net.op("Add", name + "_sum", {c, x})});
  }
  net.output(x);
  const TemporaryFolder folder;
  const std::string model = folder.file("residual.onnx");
  write_onnx(net.infer(), model);
  const Json kernels = narrow_json({"kernels", model, "--isa", "scalar"});
  int fused = 0;
  for (const Json& node : kernels.at("nodes")) {
    if (node.at("op") != "narrow::FusedConv") continue;
    ++fused;
    EXPECT_NE(node.at("chosen"), "onednn");
  }
  EXPECT_EQ(fused, 4);

  write_npy(folder.file("x.npy"), random_tensor({1, 16, 6, 6}, 5));
  const auto result = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> arguments{
        "run", model, "--input", folder.file("x.npy"), "-o", folder.file("y.npy")};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Outcome outcome = narrow_program(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return read_npy(folder.file("y.npy"));
  };
  const Tensor reference = result({"--compute", "reference"});
  EXPECT_LE(relative_error(result({"--isa", "scalar"}), reference), 1e-4);
  EXPECT_LE(relative_error(result({}), reference), 1e-4);
}

TEST(Bench, FiguresOfTheContract) {
  const Json json = narrow_json(
      {"bench", fashion_model(), "--batch", "2", "--threads", "1", "--runs", "7", "--warmup", "1"});
  EXPECT_EQ(json.at("runs"), 7);
  EXPECT_EQ(json.at("batch"), 2);
  EXPECT_EQ(json.at("threads"), 1);
  EXPECT_GT(json.at("median_us"), 0.0);
  EXPECT_LE(json.at("min_us"), json.at("median_us"));
  EXPECT_LE(json.at("median_us"), json.at("p90_us"));
  EXPECT_GT(json.at("peak_rss_bytes"), 1000000);
  EXPECT_EQ(json.at("output_hash").get<std::string>().size(), 16u);
  EXPECT_EQ(json.count("profile"), 0u);
}

TEST_F(Run, BenchTakesInputsAndProfiles) {
  const Json json = narrow_json(
      {"bench", fashion_model(), "--runs", "3", "--profile", "--input", folder_.file("named.npz")});
  EXPECT_EQ(json.at("batch"), 2);
  double total = 0;
  std::set<std::string> nodes;
  for (const Json& node : json.at("profile")) {
    total += node.at("microseconds").get<double>();
    nodes.insert(node.at("node"));
  }
  EXPECT_EQ(nodes.count("/LogSoftmax"), 1u);
  EXPECT_GT(total, 0);
  EXPECT_LE(total, 1.5 * json.at("mean_us").get<double>());  // as medians of three cannot exceed
  EXPECT_NEAR(json.at("profile_total").at("microseconds").get<double>(), total, 1e-6 * total);
  EXPECT_EQ(json.at("profile_total").at("macs"), json.at("macs"));
  EXPECT_GT(json.at("peaks").at("read_gb_per_s"), 0.0);
  EXPECT_GE(json.at("reorders").at("count"), 0);
}

TEST(Bench, StreamsShareTheThreads) {
  const Json json = narrow_json({"bench", fashion_model(), "--streams", "2", "--threads", "2",
                                 "--runs", "4", "--warmup", "1", "--batch", "2"});
  EXPECT_GT(json.at("samples_per_second"), 0.0);
  EXPECT_EQ(json.at("threads_per_stream"), 1);
  EXPECT_EQ(json.at("batch"), 2);
  ASSERT_EQ(json.at("streams").size(), 2u);
  for (const Json& stream : json.at("streams")) {
    EXPECT_EQ(stream.at("runs"), 4);
    EXPECT_LE(stream.at("median_us"), stream.at("p99_us"));
  }
  const Json alone = narrow_json(
      {"bench", fashion_model(), "--threads", "1", "--runs", "1", "--warmup", "1", "--batch", "2"});
  EXPECT_EQ(json.at("output_hash"), alone.at("output_hash"));
}

TEST(Bench, MoreStreamsThanCpusAreSaid) {
  const Outcome outcome =
      narrow_program({"bench", fashion_model(), "--streams", "5", "--threads", "1", "--runs", "2"},
                     {.environment = {{"NARROW_THREADS", "1"}}});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_contains(outcome.err, "note: 5 streams of 1 thread take turns on 1 CPU");
  expect_contains(outcome.out, "samples/s by 5 streams of 1 thread each, batch 1, 1 CPU");
  const Outcome one =
      narrow_program({"bench", fashion_model(), "--streams", "1", "--threads", "1", "--runs", "2"});
  EXPECT_EQ(one.err.find("note: "), std::string::npos) << one.err;
}

TEST(Bench, ProfileAsATable) {
  const Outcome outcome =
      narrow_program({"bench", fashion_model(), "--runs", "3", "--profile", "--threads", "1"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* piece : {"GOPS", "GB/s", "of peak", "\ntotal ", "between layouts",
                            "peaks of 1 thread: ", " float "}) {
    expect_contains(outcome.out, piece);
  }
}

TEST(Bench, PeakMemoryIsItsOwn) {
  const auto peak = [] {
    return narrow_json({"bench", fashion_model(), "--runs", "1", "--threads", "1"})
        .at("peak_rss_bytes")
        .get<uint64_t>();
  };
  const uint64_t before = peak();
  // Memory of the process that starts the program, every page of it touched.
  constexpr uint64_t kBallast = uint64_t{512} << 20;
  const std::vector<char> ballast(kBallast, 1);
  EXPECT_LT(peak(), before + kBallast / 2);
  EXPECT_EQ(ballast.back(), 1);
}

TEST(Bench, SeedDecidesTheInputs) {
  const auto hash = [](const char* seed) {
    return narrow_json({"bench", fashion_model(), "--runs", "1", "--seed", seed, "--threads", "1"})
        .at("output_hash");
  };
  EXPECT_EQ(hash("1"), hash("1"));
  EXPECT_NE(hash("1"), hash("2"));
}

}  // namespace
}  // namespace narrow
