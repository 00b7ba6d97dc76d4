// SPDX-License-Identifier: Apache-2.0
// Language models that lose heads, neurons, layers and weights: what stays computes what it did.
#include "narrow/pipeline/train_llm_thin.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "llm/tiny_model.h"
#include "narrow/core/error.h"
#include "narrow/llm/language_model.h"
#include "narrow/pipeline/llm_folder.h"
#include "narrow/pipeline/llm_quantize.h"
#include "narrow/pipeline/train.h"
#include "narrow/pipeline/train_text.h"
#include "train/train_testing.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using llm::Checkpoint;
using testing::TemporaryFolder;
using train::plugin;

const fs::path kModel = fs::path(NARROW_SOURCE_DIR) / "assets/novels-7m";

std::vector<int32_t> some_ids(int64_t count = 24) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 7 + 3) % 61));
  return ids;
}

void expect_same_logits(const Checkpoint& a, const Checkpoint& b, const std::string& what) {
  const Tensor x = llm::LanguageModel(a).logits(some_ids());
  const Tensor y = llm::LanguageModel(b).logits(some_ids());
  ASSERT_EQ(x.elements(), y.elements()) << what;
  for (size_t i = 0; i < x.data<float>().size(); ++i) {
    const float one = x.data<float>()[i];
    ASSERT_NEAR(one, y.data<float>()[i], 1e-4F * (1 + std::fabs(one))) << what << " " << i;
  }
}

/// Lines of a float32 tensor set to zero where `dead` says so.
template <class F>
Tensor without(const Tensor& x, int64_t axis, const F& dead) {
  Tensor out = x.clone();
  const int64_t columns = x.dims().back();
  for (int64_t i = 0; i < x.elements(); ++i) {
    const int64_t line = axis == 0 && x.rank() == 2 ? i / columns : i % columns;
    if (dead(line)) out.mutable_data<float>()[static_cast<size_t>(i)] = 0;
  }
  return out;
}

/// Heads 1 and 3 (and with two kv heads the second query head of each), odd neurons and layer 1
/// count for nothing.
Checkpoint with_dead_parts(const Checkpoint& model, bool heads, bool layer) {
  const int64_t head_dim = model.config().head_dim;
  const auto dead_head = [=](int64_t i) { return heads && i / head_dim % 2 == 1; };
  const auto dead_neuron = [](int64_t i) { return i % 2 == 1; };
  std::map<std::string, llm::TensorInMemory> tensors;
  for_each_tensor(model.config(), [&](const llm::TensorRow& row, int64_t number) {
    const std::string name = llm::name_of(row.gguf, number);
    Tensor x = model.read(name, llm::RowOrder::stored);
    const bool kv_dies = model.config().heads == model.config().kv_heads;
    for (int64_t axis = 0; axis < static_cast<int64_t>(x.rank()); ++axis) {
      const llm::Size size = axis == 0 ? row.rows : row.columns;
      if (size == llm::Size::ffn) x = without(x, axis, dead_neuron);
      if (size == llm::Size::q || (size == llm::Size::kv && kv_dies)) {
        x = without(x, axis, dead_head);
      }
    }
    if (layer && name.starts_with("blk.1.") && x.rank() == 2) {
      x = without(x, 0, [](int64_t) { return true; });
    }
    if (layer && (name == "blk.1.attn_output.bias" || name == "blk.1.ffn_down.bias")) {
      x = without(x, 0, [](int64_t) { return true; });
    }
    tensors[name] = {BlockType::f32, x};
  });
  return model.with(tensors);
}

LlmThinSource source(const train::Plugin* with = nullptr) {
  LlmThinSource s;
  s.data = packed_text(some_ids(129), 16);
  s.plugin = with;
  s.options.batch = 2;
  s.options.threads = 1;
  s.context = 16;
  return s;
}

/// What counts for nothing goes first, so nothing changes.
TEST(LlmThinTest, DeadPartsGoAndNothingChanges) {
  TemporaryFolder folder;
  for (const auto& [name, config] : llm::testing::tiny_configs()) {
    if (name == "bert") continue;
    const auto model = llm::testing::tiny_model(folder / name, config);
    const bool heads = name != "gpt2" && model.config().kv_heads > 1;
    const bool layer = model.config().local_layers.empty();
    const Checkpoint dead = with_dead_parts(model, heads, layer);
    std::string spec = "l1,ff=0.5,align=1";
    if (heads) spec += ",heads=0.5";
    if (layer) spec += ",blocks=1";
    ThinReport report;
    const Checkpoint thin = thin_model(dead, train::parse_thin(spec), source(), report);
    EXPECT_EQ(thin.config().intermediate_size, model.config().intermediate_size / 2) << name;
    EXPECT_EQ(thin.config().heads, model.config().heads / (heads ? 2 : 1)) << name;
    EXPECT_EQ(thin.config().layers, model.config().layers - (layer ? 1 : 0)) << name;
    EXPECT_LT(report.difference, 1e-5) << name;
    EXPECT_LT(report.model_after->parameters, report.model_before->parameters) << name;
    EXPECT_GT(report.model_after->new_tokens_per_second, 0) << name;
    expect_same_logits(dead, thin, name);
    // Through files of both kinds, with other sizes in their configs.
    LlmQuantizeJob gguf{.model = folder / name, .weights = thin, .output = folder / "t.gguf"};
    gguf.format = "f32";
    run_llm_quantize(gguf);
    expect_same_logits(dead, Checkpoint::open(folder / "t.gguf"), name + " as GGUF");
    run_llm_folder({.model = folder / name, .weights = thin, .output = folder / (name + "-thin")});
    expect_same_logits(dead, Checkpoint::open(folder / (name + "-thin")), name + " as a folder");
    // A smaller file becomes smaller still.
    const Checkpoint again = thin_model(Checkpoint::open(folder / "t.gguf"),
                                        train::parse_thin("l1,ff=0.5,align=1"), source(), report);
    EXPECT_EQ(again.config().intermediate_size, model.config().intermediate_size / 4) << name;
    run_llm_quantize({.model = folder / name, .weights = again, .output = folder / "u.gguf"});
    expect_same_logits(again, Checkpoint::open(folder / "u.gguf"), name + " again");
  }
}

/// A model without a layer is one that never had it.
TEST(LlmThinTest, ALayerLessIsTheModelWithoutIt) {
  TemporaryFolder folder;
  const auto model = llm::testing::tiny_model(folder / "m", llm::testing::kLlamaConfig);
  auto weights = llm::testing::random_weights(llm::testing::kLlamaConfig);
  std::map<std::string, Tensor> fewer;
  for (auto& [name, x] : weights) {
    // Layer 0 is made the smaller one; layer 1 takes its place.
    if (name.find("layers.0.") != name.npos) continue;
    std::string renamed = name;
    if (const size_t at = name.find("layers.1."); at != name.npos) renamed[at + 7] = '0';
    fewer[renamed] = x;
  }
  std::string config = llm::testing::kLlamaConfig;
  const std::string layers = "\"num_hidden_layers\": 2";
  config.replace(config.find(layers), layers.size(), "\"num_hidden_layers\": 1");
  llm::testing::write_model(folder / "one", config, fewer);
  std::map<std::string, llm::TensorInMemory> small;
  for (const char* name : {"blk.0.ffn_up.weight", "blk.0.ffn_down.weight"}) {
    small[name] = {BlockType::f32, without(model.read(name), 0, [](int64_t i) { return i > 3; })};
  }
  ThinReport report;
  const Checkpoint thin =
      thin_model(model.with(small), train::parse_thin("l1,blocks=1"), source(), report);
  expect_same_logits(Checkpoint::open(folder / "one"), thin, "one layer");
  ASSERT_EQ(report.groups.size(), 1U);
  EXPECT_EQ(report.groups[0].nodes[0], "layers, without blk.0");
}

/// kv heads go with the query heads that use them.
TEST(LlmThinTest, KvHeadsGoWithTheirQueries) {
  TemporaryFolder folder;
  const auto model = llm::testing::tiny_model(folder / "m", llm::testing::kLlamaConfig);
  const int64_t head_dim = model.config().head_dim;
  std::map<std::string, llm::TensorInMemory> dead;
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
      const std::string name = fmt::format("blk.{}.{}.weight", layer, part);
      const bool kv = part[5] == 'k' || part[5] == 'v';
      const int64_t first = (kv ? 1 : 2) * head_dim;  // the second kv head, query heads 2 and 3
      const int64_t axis = part[5] == 'o' ? 1 : 0;
      dead[name] = {BlockType::f32, without(model.read(name, llm::RowOrder::stored), axis,
                                            [=](int64_t i) { return i >= first; })};
    }
  }
  const Checkpoint with_dead = model.with(dead);
  ThinReport report;
  for (const char* spec : {"l1,kv_heads=0.5", "taylor,kv_heads=0.5", "gradient,kv_heads=0.5"}) {
    const bool learns = spec[0] != 'l';
    if (learns && plugin() == nullptr) continue;
    const Checkpoint thin =
        thin_model(with_dead, train::parse_thin(spec), source(learns ? plugin() : nullptr), report);
    EXPECT_EQ(thin.config().heads, 2) << spec;
    EXPECT_EQ(thin.config().kv_heads, 1) << spec;
    expect_same_logits(with_dead, thin, spec);
  }
  EXPECT_THROW(thin_model(with_dead, train::parse_thin("taylor,ff=0.5"), source(), report), Error);
}

TEST(LlmThinTest, SaysWhatCannotGo) {
  TemporaryFolder folder;
  const auto refused = [&](const std::string& config, const char* spec, const char* part) {
    static int number = 0;
    const auto model = llm::testing::tiny_model(folder / std::to_string(number++), config);
    ThinReport report;
    try {
      thin_model(model, train::parse_thin(spec), source(), report);
      ADD_FAILURE() << "no error about " << part;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  refused(llm::testing::kGpt2Config, "l1,heads=0.5", "files of gpt2");
  refused(llm::testing::kGemma2Config, "l1,blocks=1", "layers of gemma2");
  refused(llm::testing::kLlamaConfig, "l1,blocks=2", "blocks=2 of 2 layers");
  refused(llm::testing::kLlamaConfig, "l1,heads=0.1", "heads=0.1 of 2 removes none");
  refused(llm::testing::kLlamaConfig, "l1,ratio=0.5", "has no filters");
}

class LlmPruneTest : public ::testing::Test {
 protected:
  TrainJob job(const char* output) const {
    std::string text;
    for (int i = 0; i < 12; ++i) {
      text += "It was a dark evening, and the " + std::to_string(i) + " guests had gone home.\n";
    }
    write_text(folder_ / "text.txt", text);
    TrainJob j;
    j.model = kModel;
    j.output = folder_ / output;
    const std::string spec = "text:" + (folder_ / "text.txt").string();
    j.data = parse_text_spec(spec + ",context=32,tokens=129");
    j.eval_data = parse_text_spec(spec + ",context=32,chunks=2");
    j.options.epochs = 0;
    j.options.batch = 2;
    j.options.temperature = 1;
    j.options.loss = train::LossKind::distill;
    j.options.threads = 2;
    return j;
  }
  static double zeros(const Checkpoint& model, const char* name) {
    const Tensor x = model.read(name);
    return static_cast<double>(std::ranges::count(x.data<float>(), 0.0F)) /
           static_cast<double>(x.elements());
  }
  TemporaryFolder folder_;
};

TEST_F(LlmPruneTest, AThinnedModelIsWrittenAndMeasured) {
  TrainJob j = job("thin.gguf");
  j.thin = train::parse_thin("l1,heads=0.5,ff=0.25,blocks=1");
  const TrainReport report = run_train(j);
  const Checkpoint thin = Checkpoint::open(j.output);
  EXPECT_EQ(thin.config().heads, 4);
  EXPECT_EQ(thin.config().kv_heads, 4);
  EXPECT_EQ(thin.config().intermediate_size, 576);
  EXPECT_EQ(thin.config().layers, 7);
  EXPECT_EQ(thin.config().head_dim, 32);
  EXPECT_EQ(report.parameters, report.thinned.at(0).model_after->parameters);
  EXPECT_GT(*report.metric_thinned, 0.01);
  EXPECT_NEAR(*report.metric, *report.metric_thinned, 1e-5);
}

TEST_F(LlmPruneTest, AThinnedModelLearnsFromTheOneItWas) {
  if (plugin() == nullptr) GTEST_SKIP() << "libtorch was not there when this was built";
  TrainJob j = job("thin.gguf");
  j.thin = train::parse_thin("l1,ff=0.25");
  j.qat = "w4";
  j.options.epochs = 3;
  j.options.lr = 1e-3;
  const TrainReport report = run_train(j);
  EXPECT_LT(*report.metric, 0.8 * *report.metric_thinned);
  EXPECT_EQ(Checkpoint::open(j.output).at("blk.0.ffn_up.weight").type, BlockType::q4_0);
}

TEST_F(LlmPruneTest, PrunedWeightsAreZeroCodes) {
  TrainJob j = job("sparse.gguf");
  j.qat = "w4";
  j.options.prune = train::parse_prune("magnitude,sparsity=0.6,scope=layer,end=1");
  const TrainReport once = run_train(j);
  const Checkpoint sparse = Checkpoint::open(j.output);
  // Rounding to the grid makes more of them.
  EXPECT_GE(zeros(sparse, "blk.3.ffn_up.weight"), 0.6 - 1e-4);
  EXPECT_GE(zeros(sparse, "blk.0.attn_q.weight"), 0.6 - 1e-4);
  EXPECT_LT(zeros(sparse, "token_embd.weight"), 0.1);
  EXPECT_EQ(once.prune.layers.size(), 8U * 7U);
  EXPECT_LT(once.prune.deflated, once.prune.float_deflated);
  if (plugin() == nullptr) return;
  fs::remove(j.output);
  j.options.epochs = 2;
  j.options.lr = 1e-4;
  const TrainReport trained = run_train(j);
  EXPECT_GE(zeros(Checkpoint::open(j.output), "blk.3.ffn_up.weight"), 0.6 - 1e-4);
  EXPECT_LT(*trained.metric, *once.metric);
}

TEST_F(LlmPruneTest, SaysWhatIsWrong) {
  const auto refused = [&](const TrainJob& j, const char* part) {
    try {
      run_train(j);
      ADD_FAILURE() << "no error about " << part;
    } catch (const Error& e) {
      EXPECT_NE((std::string(e.what()) + e.hint()).find(part), std::string::npos) << e.what();
    }
    EXPECT_FALSE(fs::exists(j.output));
  };
  refused(job("o.gguf"), "0 epochs");
  TrainJob j = job("o.gguf");
  j.options.prune = train::parse_prune("magnitude,sparsity=0.5");
  j.qat = "q4_k_m";
  refused(j, "hold zeros");
  j.qat.clear();
  j.low_rank = train::parse_low_rank("ratio=0.5");
  refused(j, "factors");
}

}  // namespace
}  // namespace narrow
