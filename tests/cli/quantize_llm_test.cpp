// SPDX-License-Identifier: Apache-2.0
#include <sys/types.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "cli_testing.h"
#include "narrow/core/rng.h"
#include "narrow/formats/gguf/gguf.h"

namespace narrow::testing {
namespace {

namespace fs = std::filesystem;

/// A llama of `layers` layers of 256 x 256 matrices in bf16.
void write_model(const std::string& path, int layers) {
  const GgufMetadata metadata = {
      {"general.architecture", GgufValue::string("llama")},
      {"llama.block_count", GgufValue::u32(static_cast<uint32_t>(layers))}};
  std::vector<GgufItem> items = {{"token_embd.weight", &gguf_type(BlockType::bf16), {64, 256}},
                                 {"output_norm.weight", &gguf_type(BlockType::f32), {256}}};
  for (int i = 0; i < layers; ++i) {
    for (const char* name : {"attn_q", "attn_v", "ffn_down"}) {
      items.push_back({"blk." + std::to_string(i) + "." + name + ".weight",
                       &gguf_type(BlockType::bf16),
                       {256, 256}});
    }
  }
  GgufWriter writer(path, metadata, items);
  Rng rng(3);
  for (const GgufItem& item : items) {
    std::vector<float> x(static_cast<size_t>(num_elements(item.dims)));
    for (float& v : x) v = static_cast<float>(rng.normal());
    std::vector<std::byte> bytes(gguf_tensor_bytes(item));
    encode_rows(*item.type->codec, x, item.dims.back(), bytes);
    writer.write(bytes);
  }
  writer.commit();
}

class LanguageModel : public ::testing::Test {
 protected:
  void SetUp() override { write_model(model_, 2); }
  Outcome quantize(std::vector<std::string> flags, const std::string& output = "q.gguf") const {
    flags.insert(flags.begin(), {"quantize", model_, "-o", folder_.file(output)});
    return narrow_program(flags);
  }
  TemporaryFolder folder_;
  std::string model_ = folder_.file("m.gguf");
};

TEST_F(LanguageModel, IsQuantizedAndInspected) {
  const Json report =
      narrow_json({"quantize", model_, "-o", folder_.file("q.gguf"), "--format", "q4_k_m",
                   "--tensor-type", "blk.0.attn_q.*=q8_0", "--keep-float", "token_embd.weight"});
  EXPECT_EQ(report.at("format"), "q4_k_m");
  EXPECT_EQ(report.at("method"), "mse");
  EXPECT_EQ(report.at("fallbacks").size(), 0u);
  EXPECT_LT(report.at("nominal_bits_per_weight"), report.at("bits_per_weight"));
  const Json json = narrow_json({"inspect", folder_.file("q.gguf")});
  EXPECT_EQ(json.at("architecture"), "llama");
  EXPECT_EQ(json.at("layers"), 2);
  EXPECT_EQ(json.at("file_bytes"), report.at("output_bytes"));
  EXPECT_EQ(json.at("bits_per_weight"), report.at("bits_per_weight"));
  std::map<std::string, std::string> types;
  for (const Json& t : json.at("tensors")) types[t.at("name")] = t.at("type");
  EXPECT_EQ(types.at("token_embd.weight"), "BF16");
  EXPECT_EQ(types.at("output_norm.weight"), "F32");
  EXPECT_EQ(types.at("blk.0.attn_q.weight"), "Q8_0");
  EXPECT_EQ(types.at("blk.1.attn_q.weight"), "Q4_K");
  EXPECT_EQ(types.at("blk.1.ffn_down.weight"), "Q6_K");
  const Outcome text = narrow_program({"inspect", folder_.file("q.gguf"), "--nodes"});
  expect_contains(text.out, "blk.1.ffn_down.weight");
  expect_contains(text.out, "general.file_type: 15");
}

TEST_F(LanguageModel, IsConverted) {
  const Json copy = narrow_json({"convert", model_, "-o", folder_.file("c.gguf")});
  EXPECT_EQ(copy.at("format"), "as it is");
  EXPECT_TRUE(bytes_of(folder_.file("c.gguf")) == bytes_of(model_));
  narrow_json({"convert", model_, "-o", folder_.file("f.gguf"), "--format", "f32"});
  const Json json = narrow_json({"inspect", folder_.file("f.gguf")});
  EXPECT_EQ(json.at("bits_per_weight"), 32.0);
}

TEST_F(LanguageModel, GoesToAFolderAndToOnnx) {
  const std::string llama = NARROW_SOURCE_DIR "/tests/goldens/llm/llama2";
  const Json folder = narrow_json({"convert", llama, "-o", folder_.file("hf"), "--format", "bf16"});
  EXPECT_EQ(folder.at("types").at(0).at("type"), "BF16");
  EXPECT_EQ(narrow_json({"inspect", folder_.file("hf")}).at("architecture"), "llama");
  const Json report = narrow_json({"quantize", llama, "-o", folder_.file("q.onnx")});
  EXPECT_EQ(report.at("format"), "w4g32");
  EXPECT_EQ(report.at("tensors").at(1).at("type"), "INT4 g32");
  EXPECT_LT(report.at("nominal_bits_per_weight"), report.at("bits_per_weight"));
  EXPECT_EQ(report.at("output_bytes"), fs::file_size(folder_.file("q.onnx")));
  EXPECT_EQ(narrow_json({"inspect", folder_.file("q.onnx")}).at("opsets").at(""), 23);
  narrow_json({"convert", llama, "-o", folder_.file("f.onnx"), "--opset", "17"});
  EXPECT_EQ(narrow_json({"inspect", folder_.file("f.onnx")}).at("opsets").at(""), 17);
}

TEST_F(LanguageModel, WrongCombinationsAreNamed) {
  struct Case {
    std::vector<std::string> flags;
    const char* said;
  };
  const Case cases[] = {
      {{"--observer", "mse", "--dry-run"}, "--observer, --dry-run are for ONNX models alone"},
      {{"--format", "qdq"}, "--format qdq is of ONNX models"},
      {{"--format", "q4_k_n"}, "did you mean 'q4_k_"},
      {{"--method", "importance"}, "needs statistics"},
      {{"--method", "rtn", "--statistics", "x"}, "uses no statistics"},
      {{"--tensor-type", "attn=q6_k"}, "no tensor is called 'attn'"},
      {{"--tensor-type", "*=q7_k"}, "'q7_k' is no tensor type"},
      {{"--max-memory", "lots"}, "'lots' is no amount of memory"},
  };
  for (const Case& c : cases) {
    const Outcome outcome = quantize(c.flags);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_contains(outcome.err, c.said);
    EXPECT_EQ(folder_.names(), std::vector<std::string>{"m.gguf"});
  }
  const Outcome onnx = quantize({"--format", "q4_k_m"}, "q.onnx");
  EXPECT_EQ(onnx.code, 2);
  expect_contains(onnx.err, "into an .onnx file go f32, f16, bf16, w4g32");
  expect_contains(quantize({"--tensor-type", "*=q6_k"}, "q.onnx").err, "for GGUF files alone");
  expect_contains(quantize({"--max-memory", "1G"}, "q.onnx").err, "for GGUF files alone");
  expect_contains(quantize({"--chunks", "2"}, "q.onnx").err, "narrow quantize --help");
  const Outcome converted =
      narrow_program({"convert", model_, "-o", folder_.file("q.onnx"), "--resume"});
  expect_contains(converted.err, "narrow convert --help");
  const Outcome folder = quantize({}, "q");
  EXPECT_EQ(folder.code, 2);
  expect_contains(folder.err, "narrow convert writes a folder");
  const Outcome typo = narrow_program({"convert", model_, "-o", folder_.file("m.safetensors")});
  EXPECT_EQ(typo.code, 2);
  expect_contains(typo.err, "name a folder");
  EXPECT_EQ(narrow_program({"convert", model_, "-o", folder_.file("f"), "--resume"}).code, 2);
  EXPECT_EQ(narrow_program({"convert", model_, "-o", folder_.file("f"), "--opset", "17"}).code, 2);
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"m.gguf"});
  EXPECT_EQ(narrow_program({"quantize", model_, "-o", model_}).code, 2);
  const Outcome other = narrow_program(
      {"quantize", fashion_model(), "-o", folder_.file("q.onnx"), "--resume", "--method", "mse"});
  EXPECT_EQ(other.code, 2);
  expect_contains(other.err, "--method, --resume are for language models alone");
}

TEST_F(LanguageModel, KilledAndResumedGivesTheSameBytes) {
  write_model(model_, 16);
  const std::vector<std::string> command = {
      "quantize", model_, "-o", folder_.file("q.gguf"), "--format", "q4_k_m", "--threads", "1"};
  Process process(command);
  const fs::path journal = folder_.file("q.gguf.partial.journal");
  for (int i = 0; i < 6000; ++i) {
    std::error_code ignored;
    if (fs::exists(journal, ignored) && fs::file_size(journal, ignored) > 600) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ::kill(process.pid(), SIGKILL);
  process.wait();
  ASSERT_TRUE(fs::exists(folder_.file("q.gguf.partial"))) << "it was killed too late";
  EXPECT_FALSE(fs::exists(folder_.file("q.gguf")));
  std::vector<std::string> again = command;
  again.push_back("--resume");
  EXPECT_GT(narrow_json(again).at("resumed_tensors"), 0);
  EXPECT_EQ(quantize({"--format", "q4_k_m"}, "whole.gguf").code, 0);
  EXPECT_TRUE(bytes_of(folder_.file("q.gguf")) == bytes_of(folder_.file("whole.gguf")));
  EXPECT_EQ(folder_.names().size(), 3u) << "nothing else is left";
}

}  // namespace
}  // namespace narrow::testing
