// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/llm_folder.h"

#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/data/npz.h"
#include "narrow/llm/language_model.h"
#include "narrow/pipeline/llm_quantize.h"
#include "support.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

const fs::path kGoldens = fs::path(NARROW_SOURCE_DIR) / "tests/goldens/llm";
const char* const kFamilies[] = {"llama2", "llama3", "mistral",       "qwen2", "qwen3",
                                 "gemma3", "gpt2",   "gemma3_scaled", "bert"};

WeightsReport convert(const fs::path& model, const fs::path& output, const char* format = "") {
  LlmFolderJob job;
  job.model = model;
  job.output = output;
  job.format = format;
  return run_llm_folder(job);
}

void expect_same_weights(const fs::path& a, const fs::path& b) {
  const auto left = llm::Checkpoint::open(a);
  const auto right = llm::Checkpoint::open(b);
  ASSERT_EQ(left.tensors().size(), right.tensors().size());
  for (const llm::CheckpointTensor& t : left.tensors()) {
    // What follows from the config may be rounded elsewhere; logits show that it is right.
    if (left.at(t.name).hf_name.empty()) continue;
    EXPECT_TRUE(identical(left.read(t.name), right.read(t.name))) << a << ": " << t.name;
  }
}

Tensor logits_of(const fs::path& model, const Tensor& ids) {
  const Session session = llm::LanguageModel::open(model).make_session({});
  return session.run({ids, Tensor(DType::int64, {ids.dim(0)})}).front();
}

double relative_error(const Tensor& got, const Tensor& wanted) {
  double difference = 0;
  double magnitude = 0;
  for (size_t i = 0; i < wanted.data<float>().size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(got.data<float>()[i]) -
                                               static_cast<double>(wanted.data<float>()[i])));
    magnitude = std::max(magnitude, std::abs(static_cast<double>(wanted.data<float>()[i])));
  }
  return difference / magnitude;
}

TEST(LlmFolder, HoldsEveryWeightOfEveryFamily) {
  for (const char* family : kFamilies) {
    SCOPED_TRACE(family);
    std::vector<fs::path> sources{kGoldens / family};
    const fs::path gguf = kGoldens / family / "model.gguf";
    if (fs::exists(gguf)) sources.push_back(gguf);
    for (const fs::path& source : sources) {
      const TemporaryFolder folder;
      const WeightsReport report = convert(source, folder / "out", "f32");
      expect_same_weights(source, folder / "out");
      EXPECT_EQ(report.stored_bits, 32);
      EXPECT_EQ(folder.names(), std::vector<std::string>{"out"});
      if (std::string(family) == "bert") continue;
      const auto golden = read_npz(kGoldens / family / "golden.npz");
      const Tensor logits = logits_of(folder / "out", golden.at("ids"));
      EXPECT_LT(relative_error(logits, golden.at("logits")), 1e-5) << source;
    }
  }
}

TEST(LlmFolder, OfAFolderIsThatFolder) {
  const fs::path model = fs::path(NARROW_SOURCE_DIR) / "assets/novels-7m";
  const TemporaryFolder folder;
  convert(model, folder / "out");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    EXPECT_EQ(testing::bytes_of(folder / "out" / name), testing::bytes_of(model / name)) << name;
  }
  expect_same_weights(model, folder / "out");
  const auto before = llm::Checkpoint::open(model);
  const auto after = llm::Checkpoint::open(folder / "out");
  for (const llm::CheckpointTensor& t : after.tensors()) {
    EXPECT_EQ(t.type, before.at(t.name).type) << t.name;
    EXPECT_EQ(t.stored_name, before.at(t.name).stored_name);
  }
}

TEST(LlmFolder, OfAGgufFileHasItsTokenizer) {
  const fs::path model = fs::path(NARROW_SOURCE_DIR) / "assets/novels-7m";
  const TemporaryFolder folder;
  LlmQuantizeJob job;
  job.model = model;
  job.output = folder / "m.gguf";
  job.format = "q8_0";
  run_llm_quantize(job);
  const WeightsReport report = convert(folder / "m.gguf", folder / "out", "f16");
  EXPECT_EQ(report.types.front().type, "F16");
  const auto written = llm::Checkpoint::open(folder / "out");
  const llm::Tokenizer original = llm::Checkpoint::open(model).tokenizer();
  const llm::Tokenizer read = written.tokenizer();
  const std::string text =
      "It was the best of times, it was the worst of times.\n\n  42 caf\xC3\xA9";
  EXPECT_EQ(read.encode(text), original.encode(text));
  EXPECT_EQ(written.config().eos, llm::Checkpoint::open(model).config().eos);
  // Values of blocks, rounded to 16 bits.
  const auto blocks = llm::Checkpoint::open(folder / "m.gguf");
  const Tensor wanted = blocks.read("blk.0.attn_q.weight");
  const Tensor got = written.read("blk.0.attn_q.weight");
  EXPECT_TRUE(identical(
      got, Tensor::from_floats(
               Tensor::from_floats(wanted.data<float>(), DType::float16, wanted.dims()).to_floats(),
               DType::float32, wanted.dims())));
}

TEST(LlmFolder, BlocksBecomeFloat32) {
  const TemporaryFolder folder;
  LlmQuantizeJob job;
  job.model = kGoldens / "llama2";
  job.output = folder / "m.gguf";
  job.format = "q8_0";
  run_llm_quantize(job);
  convert(folder / "m.gguf", folder / "out");
  expect_same_weights(folder / "m.gguf", folder / "out");
}

TEST(LlmFolder, RefusesWhatMakesNoSense) {
  const TemporaryFolder folder;
  const auto refusal = [&](const fs::path& output, const char* format) {
    try {
      convert(kGoldens / "gpt2", output, format);
    } catch (const Error& e) {
      return e.code();
    }
    return ErrorCode::internal;
  };
  EXPECT_EQ(refusal(folder / "q", "q4_k_m"), ErrorCode::invalid_argument);
  folder.write("full/file", "x");
  EXPECT_EQ(refusal(folder / "full", ""), ErrorCode::invalid_argument);
  EXPECT_EQ(refusal(folder / "full" / "file", ""), ErrorCode::invalid_argument);
  EXPECT_EQ(refusal(folder / "none" / "out", ""), ErrorCode::io_error);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"full"});
}

}  // namespace
}  // namespace narrow
