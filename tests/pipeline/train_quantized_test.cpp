// SPDX-License-Identifier: Apache-2.0
// Training of a model that is quantized already. The model is onnxruntime's
// (tests/goldens/make_qdq.py). Skipped where libnarrow_train.so was not built.
#include "narrow/pipeline/train_quantized.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/data/npz.h"
#include "narrow/evaluate/runner.h"
#include "narrow/formats/onnx/onnx.h"
#include "narrow/graph/op_table.h"
#include "narrow/runtime/session.h"
#include "narrow/train/library.h"
#include "support.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

const fs::path kModel = fs::path(NARROW_SOURCE_DIR) / "tests/goldens/qdq.onnx";
constexpr int64_t kSamples = 400;
constexpr int64_t kPixels = int64_t{3} * 8 * 8;
constexpr int64_t kClasses = 5;

const train::Plugin* plugin() {
#ifdef NARROW_TRAIN_PLUGIN
  setenv("NARROW_TRAIN_LIBRARY", NARROW_TRAIN_PLUGIN, 1);
  return &train::load_plugin();
#else
  return nullptr;
#endif
}

/// Noise around a pattern for each class.
std::map<std::string, Tensor> patterns() {
  Rng rng(5);
  std::vector<float> centre(static_cast<size_t>(kClasses * kPixels));
  for (float& v : centre) v = static_cast<float>(rng.normal());
  Tensor x(DType::float32, {kSamples, 3, 8, 8});
  Tensor y(DType::int64, {kSamples});
  for (int64_t i = 0; i < kSamples; ++i) {
    const int64_t label = i % kClasses;
    y.mutable_data<int64_t>()[static_cast<size_t>(i)] = label;
    for (int64_t k = 0; k < kPixels; ++k) {
      const float mean = centre[static_cast<size_t>(label * kPixels + k)];
      x.mutable_data<float>()[static_cast<size_t>(i * kPixels + k)] =
          0.7F * mean + 0.7F * static_cast<float>(rng.normal());
    }
  }
  return {{"x", x}, {"y", y}};
}

class QuantizedTrainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (plugin() == nullptr) GTEST_SKIP() << "libtorch was not there when this was built";
    write_npz(folder_ / "data.npz", patterns());
  }
  TrainJob job(const std::string& output) const {
    TrainJob j;
    j.model = kModel;
    j.output = folder_ / output;
    j.data = parse_data_spec("npz:" + folder_.file("data.npz"));
    j.eval_data = j.data;
    j.options.epochs = 3;
    j.options.batch = 40;
    j.options.lr = 3e-3;
    j.options.threads = 1;
    return j;
  }
  void expect_refused(const TrainJob& j, const char* part) const {
    try {
      run_train(j);
      ADD_FAILURE() << "no error about " << part;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::unsupported);
      const std::string text = std::string(e.what()) + " " + e.hint();
      EXPECT_NE(text.find(part), std::string::npos) << text;
    }
  }
  TemporaryFolder folder_;
};

const Tensor& constant_of(const Graph& graph, const std::string& name) {
  return *graph.constant(*graph.find_value(name));
}

/// Names of constants of `a` that are others in `b`.
std::vector<std::string> differences(const Graph& a, const Graph& b) {
  std::vector<std::string> names;
  for (const ValueId id : a.live_values()) {
    if (!a.value(id).is_constant()) continue;
    const auto other = b.find_value(a.value(id).name);
    if (!other || !identical(a.value(id).constant, *b.constant(*other))) {
      names.push_back(a.value(id).name);
    }
  }
  return names;
}

bool any_ends(const std::vector<std::string>& names, const char* end) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return name.ends_with(end); });
}

std::vector<int64_t> operators_of(const Graph& graph) {
  std::map<std::string, int64_t> counts;
  for (const NodeId id : graph.nodes()) ++counts[graph.node(id).op];
  std::vector<int64_t> out;
  for (const auto& [op, count] : counts) out.push_back(count);
  return out;
}

std::vector<int64_t> predictions(const Tensor& scores) {
  std::vector<int64_t> out;
  const float* row = scores.data<float>().data();
  for (int64_t i = 0; i < scores.dim(0); ++i, row += kClasses) {
    out.push_back(std::max_element(row, row + kClasses) - row);
  }
  return out;
}

double agreement(const Tensor& a, const Tensor& b) {
  const auto x = predictions(a);
  const auto y = predictions(b);
  double same = 0;
  for (size_t i = 0; i < x.size(); ++i) same += x[i] == y[i] ? 1 : 0;
  return same / static_cast<double>(x.size());
}

TEST_F(QuantizedTrainTest, WithoutAStepTheFileComesBack) {
  TrainJob j = job("same.onnx");
  j.options.epochs = 1;
  j.options.lr = 0;
  const TrainReport report = run_train(j);
  EXPECT_EQ(report.metric, report.metric_before);
  const Graph before = read_onnx(kModel);
  const Graph after = read_onnx(j.output);
  EXPECT_EQ(differences(before, after), std::vector<std::string>());
  EXPECT_EQ(operators_of(before), operators_of(after));
}

TEST_F(QuantizedTrainTest, LearnsOnTheGridsOfTheFile) {
  const Graph before = read_onnx(kModel);
  for (const auto ranges : {train::RangeKind::fixed, train::RangeKind::learned}) {
    TrainJob j = job("tuned.onnx");
    j.options.qat.ranges = ranges;
    j.options.epochs = 6;
    j.options.lr = 1e-2;
    const TrainReport report = run_train(j);
    EXPECT_GT(*report.metric, *report.metric_before + 20);
    const Graph after = read_onnx(j.output);
    EXPECT_EQ(operators_of(before), operators_of(after));
    const auto changed = differences(before, after);
    EXPECT_TRUE(any_ends(changed, ".weight_quantized"));
    EXPECT_TRUE(any_ends(changed, ".bias_quantized"));
    EXPECT_EQ(any_ends(changed, "_scale"), ranges == train::RangeKind::learned);
    for (const ValueId id : before.live_values()) {
      const Value& value = before.value(id);
      if (!value.is_constant()) continue;
      EXPECT_EQ(constant_of(after, value.name).dtype(), value.constant.dtype()) << value.name;
    }
  }
}

TEST_F(QuantizedTrainTest, WhatIsFrozenKeepsItsCodes) {
  TrainJob j = job("frozen.onnx");
  j.freeze = {"stem.*", "one.*"};
  run_train(j);
  for (const std::string& name : differences(read_onnx(kModel), read_onnx(j.output))) {
    EXPECT_FALSE(name.starts_with("stem.weight") || name.starts_with("one.weight")) << name;
  }
}

TEST_F(QuantizedTrainTest, PrunedWeightsAreZeroCodes) {
  TrainJob j = job("sparse.onnx");
  j.options.prune = train::parse_prune("magnitude,sparsity=0.5,scope=layer");
  run_train(j);
  const Graph after = read_onnx(j.output);
  const auto codes = constant_of(after, "three.weight_quantized").to_ints();
  EXPECT_GE(std::count(codes.begin(), codes.end(), 0), static_cast<int64_t>(codes.size()) / 2);
}

TEST_F(QuantizedTrainTest, BitsThatAreAskedForMakeNewGrids) {
  TrainJob j = job("w4a4.onnx");
  j.qat = "w4a4";
  j.options.loss = train::LossKind::distill;  // from the model that came in
  run_train(j);
  const LiftedModel lifted = lift(read_onnx(j.output));
  ASSERT_EQ(lifted.weights.size(), 4);
  for (const auto& [name, w] : lifted.weights) EXPECT_LE(w.params.scheme.bits, 4) << name;
}

TEST_F(QuantizedTrainTest, SaysWhatNeedsAFloatModel) {
  TrainJob j = job("o.onnx");
  j.thin = train::parse_thin("l1,macs=0.5");
  expect_refused(j, "--qat");
  j = job("o.onnx");
  j.options.loss = train::LossKind::distill;
  expect_refused(j, "--teacher");
  j = job("o.onnx");
  j.options.qat.method = train::QatMethod::dorefa;
  expect_refused(j, "lsq");
  j = job("o.onnx");
  j.model = fs::path(NARROW_SOURCE_DIR) / "tests/corpus/onnx/dynamic.onnx";
  j.options.batch = 2;
  expect_refused(j, "train the float model");
}

/// Training computes with what is written: the scores of the engine on its grids, with adapters
/// added before and after rounding, and those of the integer model.
TEST_F(QuantizedTrainTest, TheIntegerModelPredictsWhatWasTrained) {
  Graph file = read_onnx(kModel);
  infer_shapes(file);
  const TrainJob j = job("none.onnx");
  const LiftedModel lifted = open_quantized(file, j);
  const Tensor x = patterns().at("x");
  const auto data = open_dataset(j.data, data_hints(file));
  for (const char* way : {"weights", "merged", "beside"}) {
    train::TrainPlan plan;
    plan.graph = lifted.graph;
    infer_shapes(plan.graph);
    plan.parameters = train::trainable_parameters(plan.graph);
    train::TrainOptions options = j.options;
    add_file_grids(lifted, plan);
    AdapterOptions adapters;
    adapters.rank = 2;
    if (way[0] == 'b') adapters.output = folder_ / "adapter";
    if (way[0] != 'w') add_adapters(adapters, 1, plan);
    fix_file_grids(plan, options.qat);
    const train::TrainState state = plugin()->train(plan, *data, options, {}, {}).state;
    // The state as a plan of its own.
    train::TrainPlan trained = plan;
    trained.adapters = state.adapters;
    train::set_parameters(trained.graph, state);
    trained.weights = state.weights;
    for (auto& [name, grid] : trained.activations) grid.params = state.activations.at(name);
    const Tensor engine = plugin()->run(trained, {{"x", x}}).at(0);
    const Graph out = beside_codes(on_file_grids(lifted, state), state.adapters);
    EXPECT_GE(agreement(engine, Session(out).run({x}).at(0)), 0.995) << way;
    EXPECT_LT(agreement(engine, Session(file).run({x}).at(0)), 0.9) << way;  // it has learned
  }
}

TEST_F(QuantizedTrainTest, AdaptersAreMergedOntoTheGridsOfTheFile) {
  TrainJob j = job("merged.onnx");
  j.adapters.rank = 4;
  j.options.qat.ranges = train::RangeKind::fixed;
  j.options.lr = 1e-2;
  const TrainReport report = run_train(j);
  EXPECT_GT(*report.metric, *report.metric_before + 10);
  const auto changed = differences(read_onnx(kModel), read_onnx(j.output));
  EXPECT_TRUE(any_ends(changed, ".weight_quantized"));
  EXPECT_FALSE(any_ends(changed, ".bias_quantized"));
  EXPECT_FALSE(any_ends(changed, "_scale"));
}

TEST_F(QuantizedTrainTest, AdaptersStayBesideTheCodes) {
  TrainJob j = job("base.onnx");
  j.adapters.rank = 4;
  j.adapters.output = folder_ / "adapter";
  j.options.lr = 1e-2;
  const TrainReport report = run_train(j);
  EXPECT_GT(*report.metric, *report.metric_before + 10);
  // What is written beside the adapters is the file that came in.
  EXPECT_EQ(differences(read_onnx(kModel), read_onnx(j.output)), std::vector<std::string>());
  // Merging needs no training.
  TrainJob merge = job("merged.onnx");
  merge.options.epochs = 0;
  merge.adapters.input = folder_ / "adapter";
  const TrainReport merged = run_train(merge);
  EXPECT_GT(*merged.metric, *report.metric_before + 10);
  const auto changed = differences(read_onnx(kModel), read_onnx(merge.output));
  EXPECT_TRUE(any_ends(changed, ".weight_quantized"));
  EXPECT_FALSE(any_ends(changed, "_scale"));
}

TEST_F(QuantizedTrainTest, AdaptersBesideNewGrids) {
  TrainJob j = job("w4.onnx");
  j.qat = "w4a8";
  j.adapters.rank = 4;
  j.adapters.output = folder_ / "adapter";
  j.options.lr = 1e-2;
  const TrainReport report = run_train(j);
  EXPECT_GT(*report.metric, *report.metric_ptq + 10);
  // The model that is written has no adapters in it; merged they give other codes.
  TrainJob merge = job("merged.onnx");
  merge.model = j.output;
  merge.options.epochs = 0;
  merge.adapters.input = folder_ / "adapter";
  const TrainReport merged = run_train(merge);
  EXPECT_GT(*merged.metric, *merged.metric_before);
}

}  // namespace
}  // namespace narrow
