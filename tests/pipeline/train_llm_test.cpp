// SPDX-License-Identifier: Apache-2.0
// Training of language models: what comes out of it is what was trained. Skipped where
// libnarrow_train.so was not built.
#include "narrow/pipeline/train_llm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "llm/tiny_model.h"
#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"
#include "narrow/llm/language_model.h"
#include "narrow/pipeline/llm_quantize.h"
#include "narrow/pipeline/train_llm_grids.h"
#include "narrow/pipeline/train_text.h"
#include "narrow/ptq/rtn/rtn.h"
#include "narrow/quant/quantize.h"
#include "narrow/train/library.h"
#include "train/train_testing.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

const fs::path kModel = fs::path(NARROW_SOURCE_DIR) / "assets/novels-7m";

using train::plugin;

std::string some_text() {
  std::string text;
  for (int i = 0; i < 12; ++i) {
    text += "It was a dark evening, and the " + std::to_string(i) + " guests had gone home.\n";
  }
  return text;
}

class LlmTrainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (plugin() == nullptr) GTEST_SKIP() << "libtorch was not there when this was built";
    write_text(folder_ / "text.txt", some_text());
  }
  TrainJob job(const std::string& output, const std::string& qat) const {
    TrainJob j;
    j.model = kModel;
    j.output = folder_ / output;
    const std::string text = "text:" + (folder_ / "text.txt").string();
    j.data = parse_text_spec(text + ",context=32,tokens=129");
    j.eval_data = parse_text_spec(text + ",context=32,chunks=2");
    j.qat = qat;
    j.options.epochs = 1;
    j.options.batch = 2;
    j.options.lr = 1e-4;
    j.options.temperature = 1;
    j.options.loss = train::LossKind::distill;
    j.options.threads = 2;
    return j;
  }
  void expect_error(const TrainJob& j, ErrorCode code, const char* part) const {
    try {
      run_train(j);
      ADD_FAILURE() << "no error about " << part;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      const std::string text = std::string(e.what()) + " " + e.hint();
      EXPECT_NE(text.find(part), std::string::npos) << text;
    }
    EXPECT_FALSE(fs::exists(j.output));
  }
  TemporaryFolder folder_;
};

TEST_F(LlmTrainTest, ComputesWhatTheRuntimeComputes) {
  for (const auto& [name, config] : llm::testing::tiny_configs()) {
    if (name == "bert") continue;
    const auto model = llm::testing::tiny_model(folder_ / name, config);
    llm::GraphOptions options;
    options.activations = llm::Activations::real;
    train::TrainPlan plan;
    plan.graph = llm::build_graph(model, options);
    infer_shapes(plan.graph);
    std::vector<int32_t> ids;
    for (int i = 0; i < 24; ++i) ids.push_back((i * 7 + 3) % 61);
    const Tensor ours = llm::LanguageModel(model).logits(ids);
    const Tensor theirs = plugin()
                              ->run(plan, {{"input_ids", llm::ids_tensor(ids, 1)},
                                           {"position", Tensor(DType::int64, {1})}})
                              .front();
    ASSERT_EQ(ours.elements(), theirs.elements()) << name;
    for (size_t i = 0; i < ours.data<float>().size(); ++i) {
      const float y = ours.data<float>()[i];
      ASSERT_NEAR(theirs.data<float>()[i], y, 2e-4F * (1 + std::fabs(y))) << name << " " << i;
    }
  }
}

TEST_F(LlmTrainTest, BlocksHoldJustTheValuesOfTheGrid) {
  Rng rng(5);
  Tensor w(DType::float32, {6, 64});
  for (float& x : w.mutable_data<float>()) x = static_cast<float>(0.1 * rng.normal());
  for (const auto& [bits, group] : std::vector<std::pair<int, int64_t>>{
           {2, 32}, {3, 32}, {4, 32}, {5, 32}, {8, 32}, {3, 64}, {8, 64}}) {
    Scheme scheme;
    scheme.bits = bits;
    scheme.granularity = Granularity::per_group;
    scheme.axis = 1;
    scheme.group_size = group;
    scheme.scale_type = ScaleType::float16;
    const QuantParams params = weight_params(w, scheme);
    const Tensor wanted = dequantize(quantize(w, params), params);
    const llm::TensorInMemory blocks = as_blocks(w, params);
    std::vector<float> values(6 * 64);
    decode_rows(blocks.type, {blocks.data.raw(), blocks.data.bytes()}, 64, values);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i], wanted.data<float>()[i]) << bits << " bits, value " << i << group;
    }
  }
}

/// The weights that training computes with, run in both executors: the file has the same.
TEST_F(LlmTrainTest, TheFileHasTheTrainedCodes) {
  for (const char* qat : {"w3", "q4_k_m", "w4", "w4a8+kv8"}) {
    TrainJob j = job(std::string(qat).substr(0, 2) + ".gguf", qat);
    const TrainReport report = run_train(j);
    EXPECT_EQ(report.metric_name, "kl");
    ASSERT_EQ(report.epochs.size(), 1U);
    // The metric of the state in memory and that of the file are of the same weights; the rows of
    // queries and keys have another order in the file, and so their sums: here and there a code of
    // an activation is the next one.
    const double bound = std::string(qat).find("a8") == std::string::npos ? 1e-5 : 5e-4;
    EXPECT_NEAR(*report.metric, *report.epochs[0].metric, bound) << qat;
    EXPECT_NE(*report.metric, *report.metric_ptq) << qat;
    EXPECT_TRUE(std::isfinite(*report.perplexity));
  }
  const auto w3 = llm::Checkpoint::open(folder_ / "w3.gguf");
  EXPECT_EQ(w3.at("blk.0.attn_q.weight").type, BlockType::q4_0);
  EXPECT_EQ(w3.at("token_embd.weight").type, BlockType::q8_0);
  EXPECT_EQ(llm::Checkpoint::open(folder_ / "q4.gguf").at("blk.3.ffn_up.weight").type,
            BlockType::q4_k);
}

llm::Checkpoint in_float(const llm::Checkpoint& model) {
  std::map<std::string, llm::TensorInMemory> tensors;
  for (const llm::CheckpointTensor& t : model.tensors()) {
    tensors[t.name] = {BlockType::f32, model.read(t.name, llm::RowOrder::stored)};
  }
  return model.with(tensors);
}

/// Without a step, the file's values in the executor without grids are those with grids: what the
/// executor rounds to is what is written.
TEST_F(LlmTrainTest, TheExecutorRoundsToTheFilesValues) {
  for (const char* qat : {"w4", "q4_k_m", "q2_k", "iq4_nl"}) {
    TrainJob j = job("f.gguf", qat);
    j.options.lr = 0;
    run_train(j);
    const auto source = llm::Checkpoint::open(kModel);
    const auto file = llm::Checkpoint::open(j.output);
    train::TrainPlan rounded = plan_of(in_float(source), 32);
    add_grids(parse_llm_grids(qat), source, rounded);
    const train::TrainPlan plain = plan_of(in_float(file), 32);
    const std::vector<int32_t> ids = {5, 900, 77, 1234, 8};
    const std::map<std::string, Tensor> inputs = {{"input_ids", llm::ids_tensor(ids, 1)},
                                                  {"position", Tensor(DType::int64, {1})}};
    const Tensor a = plugin()->run(rounded, inputs).front();
    const Tensor b = plugin()->run(plain, inputs).front();
    for (size_t i = 0; i < a.data<float>().size(); ++i) {
      // Rows of queries and keys are in another order in the file: sums differ in their last bits.
      ASSERT_NEAR(a.data<float>()[i], b.data<float>()[i], 2e-4) << qat;
    }
    fs::remove(j.output);
  }
}

/// What is said to matter is what the first scales spare.
TEST_F(LlmTrainTest, StatisticsWeighTheScales) {
  const auto source = in_float(llm::Checkpoint::open(kModel));
  const std::string name = "blk.3.ffn_up.weight";
  const Tensor w = source.read(name);
  const auto columns = static_cast<size_t>(w.dim(1));
  ImportanceFile statistics;
  ImportanceEntry& entry = statistics.entries[name];
  entry.counts = {1};
  for (size_t i = 0; i < columns; ++i) entry.sums.push_back(i % 2 == 0 ? 1.0F : 1e-3F);
  const auto error = [&](const ImportanceFile& given) {
    train::TrainPlan plan = plan_of(source, 32);
    add_grids(parse_llm_grids("w2"), source, plan, given);
    const std::vector<float> rounded = fake_quant(w, plan.weights.at(name)).to_floats();
    double sum = 0;
    for (size_t i = 0; i < rounded.size(); i += 2) {
      sum += std::pow(rounded[i] - w.data<float>()[i], 2);
    }
    return sum;
  };
  EXPECT_LT(error(statistics), 0.95 * error({}));
  entry.sums.resize(columns / 2);
  EXPECT_THROW(error(statistics), Error);
  TrainJob j = job("o.gguf", "q4_0");
  j.statistics = "s.gguf";
  EXPECT_THROW(run_train(j), Error);
}

/// Codes of w3 in int4 of an ONNX file: the graph's weights are those of the blocks, in groups of
/// the size that was trained.
class LlmGroupTest : public LlmTrainTest, public ::testing::WithParamInterface<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, LlmGroupTest, ::testing::Values(32, 128));

TEST_P(LlmGroupTest, AnOnnxFileHasTheSameCodes) {
  const int64_t group = GetParam();
  TrainJob j = job("w3.gguf", "w3g" + std::to_string(group));
  j.data.options["tokens"] = "65";
  j.options.lr = 0;
  run_train(j);
  j.output = folder_ / "w3.onnx";
  run_train(j);
  const Graph graph = read_onnx(j.output);
  const auto blocks = llm::Checkpoint::open(folder_ / "w3.gguf");
  int checked = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!node.is("DequantizeLinear") || node.int_or("block_size", 0) != group) continue;
    const std::string& name = graph.value(node.input(0)).name;
    if (name.find("blk.2.ffn_down") == std::string::npos) continue;
    const std::vector<int64_t> codes = graph.constant(node.input(0))->to_ints();
    const std::vector<float> scales = graph.constant(node.input(1))->to_floats();
    const Tensor wanted = blocks.read("blk.2.ffn_down.weight");
    const int64_t rows = wanted.dim(0);
    const int64_t columns = wanted.dim(1);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const float value = scales[static_cast<size_t>(c / group * rows + r)] *
                            static_cast<float>(codes[static_cast<size_t>(c * rows + r)]);
        ASSERT_EQ(value, wanted.data<float>()[static_cast<size_t>(r * columns + c)])
            << r << " " << c;
      }
    }
    ++checked;
  }
  EXPECT_EQ(checked, 1);
}

TEST_F(LlmTrainTest, AdaptersAreMergedOntoTheGrid) {
  TrainJob j = job("lora.gguf", "w4");
  j.adapters = parse_adapters("rank=4,alpha=8,layers=blk.*.attn_q.weight");
  j.options.lr = 1e-2;
  const TrainReport report = run_train(j);
  EXPECT_EQ(report.parameters, 8 * (4 * 256 + 4 * 256));
  EXPECT_NEAR(*report.metric, *report.epochs[0].metric, 1e-5);
  EXPECT_NE(*report.metric, *report.metric_ptq);
}

TEST_F(LlmTrainTest, AdaptersStayInAFileOfTheirOwn) {
  TrainJob j = job("base.gguf", "q4_0");
  j.adapters = parse_adapters("rank=4,layers=blk.*.ffn_up.weight");
  j.adapters.output = folder_ / "adapter";
  j.options.lr = 1e-2;
  const TrainReport first = run_train(j);
  EXPECT_LT(*first.metric, 10);
  // The base is what quantization alone makes of it.
  TrainJob untrained = job("plain.gguf", "q4_0");
  untrained.options.lr = 0;
  run_train(untrained);
  EXPECT_TRUE(read_text(j.output) == read_text(untrained.output));
  const auto file = SafetensorsFile::open(folder_ / "adapter" / "adapter_model.safetensors");
  const SafetensorsEntry* b =
      file.find("base_model.model.model.layers.3.mlp.up_proj.lora_B.weight");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dims, (Dims{768, 4}));
  // Taken up again without a step, they give what was measured.
  TrainJob again = j;
  again.adapters.input = folder_ / "adapter";
  again.adapters.output = folder_ / "adapter2";
  again.output.clear();
  again.options.lr = 0;
  EXPECT_EQ(*run_train(again).metric, *first.metric);
  EXPECT_EQ(read_adapter_config(folder_ / "adapter").rank, 4);
}

TEST_F(LlmTrainTest, WhatIsFrozenStaysAsItIs) {
  TrainJob j = job("f.gguf", "");
  j.freeze = {"blk.*", "token_embd.weight"};
  j.options.loss = train::LossKind::cross_entropy;
  j.options.lr = 1e-2;
  const TrainReport report = run_train(j);
  EXPECT_EQ(report.parameters, 256);  // output_norm
  const auto before = llm::Checkpoint::open(kModel);
  const auto after = llm::Checkpoint::open(j.output);
  const auto same = [&](const char* name) {
    const Tensor a = before.read(name);
    const Tensor b = after.read(name);
    return std::equal(a.data<float>().begin(), a.data<float>().end(), b.data<float>().begin());
  };
  EXPECT_TRUE(same("blk.0.attn_norm.weight"));
  EXPECT_TRUE(same("blk.5.attn_k.weight"));
  EXPECT_FALSE(same("output_norm.weight"));
}

/// A GGUF file that is quantized already goes on from its codes.
TEST_F(LlmTrainTest, BlocksOfTheFileAreTheStart) {
  LlmQuantizeJob make{.model = kModel, .output = folder_ / "file.gguf"};
  make.format = "q4_0";
  make.threads = 2;
  run_llm_quantize(make);
  const auto file = llm::Checkpoint::open(make.output);
  for (const double lr : {0.0, 1e-2}) {  // less moves no scale of 11 bits
    TrainJob j = job("w4.gguf", "w4");
    j.model = make.output;
    expect_error(j, ErrorCode::invalid_argument, "--teacher");
    j.options.loss = train::LossKind::cross_entropy;
    j.options.lr = lr;
    j.freeze = {"blk.1.*"};
    const TrainReport report = run_train(j);
    ASSERT_EQ(report.notes.size(), 1U);
    EXPECT_NE(report.notes[0].find("begin with the file's codes"), std::string::npos);
    const auto trained = llm::Checkpoint::open(j.output);
    for (const llm::CheckpointTensor& t : file.tensors()) {
      if (t.type != BlockType::q4_0 || t.name == "token_embd.weight") continue;
      const bool stays = lr == 0 || t.name.starts_with("blk.1.");
      EXPECT_EQ(identical(file.raw(t.name), trained.raw(t.name)), stays) << t.name << " " << lr;
    }
    fs::remove(j.output);
  }
}

/// Rounding to a format encodes anew what is trained, and leaves alone what is frozen.
TEST_F(LlmTrainTest, FrozenBlocksKeepTheirBytes) {
  LlmQuantizeJob make{.model = kModel, .output = folder_ / "file.gguf"};
  make.format = "q4_k_m";
  make.threads = 2;
  run_llm_quantize(make);
  TrainJob j = job("again.gguf", "q4_k_m");
  j.model = make.output;
  j.freeze = {"blk.0.*"};
  run_train(j);
  const auto file = llm::Checkpoint::open(make.output);
  const auto trained = llm::Checkpoint::open(j.output);
  int kept = 0;
  for (const llm::CheckpointTensor& t : file.tensors()) {
    if (t.dims.size() != 2 || codec(t.type).block_values == 1) continue;
    const bool same = identical(file.raw(t.name), trained.raw(t.name));
    EXPECT_EQ(same, t.name.starts_with("blk.0.")) << t.name;
    kept += same ? 1 : 0;
  }
  EXPECT_EQ(kept, 7);
}

/// Blocks encoded, decoded and encoded by rounding: how many values stay what they were.
TEST(BlocksTest, EncodingAgainKeepsCodes) {
  struct Row {
    BlockType type;
    double least;  // share of equal values
  };
  for (const Row& row :
       {Row{BlockType::q4_0, 1}, Row{BlockType::q8_0, 1}, Row{BlockType::q4_k, 0.9},
        Row{BlockType::q5_k, 0.9}, Row{BlockType::q6_k, 0.9}}) {
    const int64_t columns = 512;
    Tensor x(DType::float32, {64, columns});
    Rng rng(3);
    for (float& v : x.mutable_data<float>()) v = static_cast<float>(rng.normal());
    const auto decoded = [&](const llm::TensorInMemory& blocks) {
      Tensor y(DType::float32, x.dims());
      decode_rows(row.type, {blocks.data.raw(), blocks.data.bytes()}, columns,
                  y.mutable_data<float>());
      return y;
    };
    const Tensor once = decoded(as_blocks(x, row.type));
    const Tensor twice = decoded(as_blocks(once, row.type));
    double same = 0;
    for (size_t i = 0; i < once.data<float>().size(); ++i) {
      const float d = std::abs(once.data<float>()[i] - twice.data<float>()[i]);
      same += d == 0 ? 1 : 0;
    }
    EXPECT_GE(same / static_cast<double>(x.elements()), row.least) << codec(row.type).name;
  }
}

TEST_F(LlmTrainTest, FloatTrainingLowersThePerplexity) {
  TrainJob j = job("model", "");
  j.options.loss = train::LossKind::cross_entropy;
  j.options.epochs = 3;
  const TrainReport report = run_train(j);
  EXPECT_LT(*report.metric, *report.metric_before);
  EXPECT_EQ(llm::Checkpoint::open(j.output).config().vocab_size, 4096);
}

TEST_F(LlmTrainTest, SaysWhatIsWrong) {
  TrainJob j = job("o.gguf", "w3");
  j.data.options["context"] = "512";
  expect_error(j, ErrorCode::invalid_argument, "a sequence needs 512");
  j = job("folder", "w3");
  expect_error(j, ErrorCode::invalid_argument, "float numbers");
  j = job("o.gguf", "w3");
  llm::testing::tiny_model(folder_ / "tiny", llm::testing::kLlamaConfig);
  j.teacher = folder_ / "tiny";
  expect_error(j, ErrorCode::invalid_argument, "vocabulary of 61");
  j = job("o.gguf", "");
  j.freeze = {"blk.0.atn_q.weight"};
  expect_error(j, ErrorCode::invalid_argument, "did you mean 'blk.0.attn_q.weight'");
  j.freeze.clear();
  j.adapters = parse_adapters("layers=blk.9.ffn_up.weight");
  expect_error(j, ErrorCode::invalid_argument, "blk.9.ffn_up.weight");
  for (const char* bad : {"rank=0", "rank=2.5", "rnk=3", "layers=", "alpha=x"}) {
    EXPECT_THROW(parse_adapters(bad), Error) << bad;
  }
  for (const char* bad : {"w9", "w4a4", "w4g48", "w4g16", "q4_x", "w", "f16", ""}) {
    EXPECT_THROW(parse_llm_grids(bad), Error) << bad;
  }
  for (const char* bad : {"text:f,contxt=3", "text:f,context=0", "text:f,context=x", "mnist:d"}) {
    EXPECT_THROW(parse_text_spec(bad), Error) << bad;
  }
}

}  // namespace
}  // namespace narrow
