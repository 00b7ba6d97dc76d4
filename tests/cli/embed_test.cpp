// SPDX-License-Identifier: Apache-2.0
// narrow embed on a tiny BERT, as a folder, as GGUF and as ONNX files.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "cli/cli_testing.h"
#include "narrow/core/file.h"
#include "narrow/data/npz.h"

namespace narrow::testing {
namespace {

namespace fs = std::filesystem;

const fs::path kGoldens = fs::path(NARROW_SOURCE_DIR) / "tests/goldens";

class CliEmbed : public ::testing::Test {
 protected:
  CliEmbed() {
    fs::copy(kGoldens / "embed", model(), fs::copy_options::recursive);
    for (const char* name : {"config.json", "model.safetensors"}) {
      fs::copy(kGoldens / "llm/bert" / name, fs::path(model()) / name);
    }
  }
  std::string model() const { return folder_.file("bert"); }
  std::vector<std::string> command(const std::string& from, const std::string& input,
                                   const std::string& output) const {
    return {"embed", from, "--input", input, "--output", folder_.file(output)};
  }
  void expect_fails(const std::vector<std::string>& arguments, int code,
                    const std::string& message) const {
    const Outcome outcome = narrow_program(arguments);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_NE(outcome.err.find(message), std::string::npos) << outcome.err;
  }
  double worst_against_golden(const std::string& file) const {
    const Tensor got = read_npy(folder_ / file);
    const Tensor wanted = read_npz(kGoldens / "embed/golden.npz").at("mean_normalized");
    EXPECT_EQ(got.dims(), wanted.dims());
    double worst = 0;
    for (int64_t i = 0; i < got.elements(); ++i) {
      worst = std::max(
          worst, static_cast<double>(std::abs(got.data<float>()[i] - wanted.data<float>()[i])));
    }
    return worst;
  }

  TemporaryFolder folder_;
  const std::string texts_ = (kGoldens / "embed/texts.txt").string();
};

TEST_F(CliEmbed, WritesOneRowALine) {
  const Json j = narrow_json(command(model(), texts_, "out.npy"));
  EXPECT_EQ(j["texts"], 11);
  EXPECT_EQ(j["width"], 32);
  EXPECT_EQ(j["truncated"], 1);
  EXPECT_EQ(j["max_tokens"], 12);
  EXPECT_EQ(j["pooling"], "mean");
  EXPECT_EQ(j["normalized"], true);
  EXPECT_LT(worst_against_golden("out.npy"), 2e-6);
  const Outcome plain = narrow_program(command(model(), texts_, "plain.npy"));
  EXPECT_EQ(plain.code, 0);
  expect_contains(plain.out, "1 texts have more than 12 tokens");
  EXPECT_EQ(bytes_of(folder_ / "out.npy"), bytes_of(folder_ / "plain.npy"));
}

TEST_F(CliEmbed, TakesTheFilesThatConvertAndQuantizeWrite) {
  const auto make = [&](const std::vector<std::string>& words, const std::string& file) {
    std::vector<std::string> arguments = words;
    arguments.insert(arguments.begin() + 1, model());
    arguments.insert(arguments.end(), {"-o", folder_.file(file)});
    (void)narrow_json(arguments);
  };
  make({"convert"}, "float.onnx");
  make({"quantize", "--format", "w8a8"}, "w8a8.onnx");
  const Json j = narrow_json(command(folder_.file("float.onnx"), texts_, "float.npy"));
  EXPECT_EQ(j["max_tokens"], 12);  // the file carries what the folder said
  EXPECT_EQ(j["pooling"], "mean");
  EXPECT_LT(worst_against_golden("float.npy"), 5e-6);
  (void)narrow_json(command(folder_.file("w8a8.onnx"), texts_, "w8a8.npy"));
  EXPECT_LT(worst_against_golden("w8a8.npy"), 0.03);
  EXPECT_GT(worst_against_golden("w8a8.npy"), 1e-5);
  // Neither the batch nor the threads change a byte.
  for (const char* batch : {"1", "5", "1000"}) {
    std::vector<std::string> again = command(folder_.file("w8a8.onnx"), texts_, "again.npy");
    again.insert(again.end(), {"--batch", batch, "--threads", batch});
    again.back() = std::string(batch) == "1" ? "1" : "3";
    (void)narrow_json(again);
    EXPECT_EQ(bytes_of(folder_ / "again.npy"), bytes_of(folder_ / "w8a8.npy")) << batch;
  }
}

TEST_F(CliEmbed, OddTexts) {
  std::string text = "the cat\r\n\n\xff\xfe cat\n";
  for (int i = 0; i < 100000; ++i) text += "dog ";
  text += "\nthe cat\n" + std::string(100000, 'x');
  const auto input = folder_.write("odd.txt", text);
  const Json j = narrow_json(command(model(), input.string(), "odd.npy"));
  EXPECT_EQ(j["texts"], 6);
  EXPECT_EQ(j["ill_formed"], 1);
  EXPECT_EQ(j["truncated"], 1);
  const Tensor rows = read_npy(folder_ / "odd.npy");
  ASSERT_EQ(rows.dims(), (Dims{6, 32}));
  for (int64_t c = 0; c < 32; ++c) {
    EXPECT_EQ(rows.data<float>()[c], rows.data<float>()[4 * 32 + c]);  // "\r" is no text
  }
}

TEST_F(CliEmbed, SaysWhatIsWrong) {
  expect_fails(command(model(), folder_.file("absent.txt"), "o.npy"), 3, "absent.txt");
  expect_fails(command(model(), folder_.write("empty.txt", "").string(), "o.npy"), 3, "is empty");
  expect_fails(command(model(), texts_, "o.txt"), 2, ".npy");
  expect_fails(command(model(), texts_, "nowhere/o.npy"), 3, "nowhere");
  expect_fails(command(folder_.file("nothing"), texts_, "o.npy"), 3, "nothing");
  expect_fails(command(model(), folder_.path().string(), "o.npy"), 2, folder_.path().string());
  std::vector<std::string> wrong = command(model(), texts_, "o.npy");
  wrong.insert(wrong.end(), {"--pooling", "max"});
  expect_fails(wrong, 2, "--pooling");
  const std::string vision = std::string(NARROW_SOURCE_DIR) + "/tests/goldens/embed/absent.onnx";
  expect_fails(command(vision, texts_, "o.npy"), 3, "absent.onnx");
  expect_fails(command(fashion_model(), texts_, "o.npy"), 3, "no tokenizer");
  EXPECT_FALSE(fs::exists(folder_ / "o.npy"));
  // A folder without a tokenizer.
  fs::remove(fs::path(model()) / "tokenizer.json");
  expect_fails(command(model(), texts_, "o.npy"), 3, "tokenizer");
}

}  // namespace
}  // namespace narrow::testing
