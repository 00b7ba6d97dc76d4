// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/quantize.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "narrow/core/error.h"
#include "narrow/formats/onnx/onnx.h"
#include "support.h"

namespace narrow {
namespace {

using testing::bytes_of;
using testing::TemporaryFolder;

namespace fs = std::filesystem;

constexpr const char* kFashion = "/usr/share/datasets/fashion-mnist";

fs::path fashion_model() {
  return fs::path(NARROW_SOURCE_DIR) / "assets" / "fashion_cnn.onnx";
}

class QuantizeFashion : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kFashion)) GTEST_SKIP() << "needs Debian's dataset-fashion-mnist";
    job.model = fashion_model();
    job.output = folder.path() / "q.onnx";
    set("data", std::string("mnist:") + kFashion + ",split=train");
    set("eval_data", std::string("mnist:") + kFashion + ",split=test");
    set("calibration_samples", "200");
    set("eval_samples", "400");
  }
  void set(const char* key, const std::string& value) { set_recipe_key(job.recipe, key, value); }

  TemporaryFolder folder;
  QuantizeJob job;
};

TEST_F(QuantizeFashion, StaticIsSmallAccurateAndInteger) {
  const QuantizeReport report = run_quantize(job);
  EXPECT_EQ(report.verification.metric, Metric::top1);
  EXPECT_EQ(report.verification.samples, 400);
  EXPECT_GT(report.verification.float_value, 88);
  EXPECT_LE(report.verification.drop(), 0.5);  // two images of 400
  EXPECT_GE(*report.verification.agreement, 99);
  EXPECT_GT(report.verification.cosine, 0.999);
  EXPECT_TRUE(report.reloaded_identical);
  EXPECT_GE(report.integer_mac_fraction, 0.99);
  EXPECT_LE(static_cast<double>(report.quantized_bytes),
            0.26 * static_cast<double>(report.float_bytes));
  EXPECT_EQ(report.quantized_bytes, fs::file_size(job.output));
  EXPECT_EQ(report.opset, 13);
  ASSERT_EQ(report.layers.size(), 4u);
  for (const QuantizedLayer& layer : report.layers) {
    EXPECT_EQ(layer.weights.substr(0, 4), "int8");
    EXPECT_EQ(layer.activations.substr(0, 5), "uint8");
    EXPECT_GT(layer.weight_sqnr_db, 35) << layer.node;
    EXPECT_GT(layer.output_sqnr_db, 20) << layer.node;
  }
  const Graph written = read_onnx(job.output);
  EXPECT_EQ(written.metadata.at("narrow.seed"), "1");
  EXPECT_EQ(dump_recipe(parse_recipe(written.metadata.at("narrow.recipe")), DumpDefaults::include),
            written.metadata.at("narrow.recipe"));
}

TEST_F(QuantizeFashion, SameBytesForAnyNumberOfThreads) {
  set("observer", "entropy");
  set("calibration_samples", "64");
  set("eval_samples", "64");
  job.threads = 1;
  run_quantize(job);
  const std::string one = bytes_of(job.output);
  job.threads = 2;
  run_quantize(job);
  EXPECT_EQ(one, bytes_of(job.output));
  job.threads = 3;
  run_quantize(job);
  EXPECT_EQ(one, bytes_of(job.output));
}

TEST_F(QuantizeFashion, EveryModeKeepsAccuracy) {
  struct Case {
    const char* mode;
    const char* weights;
    const char* group_size;
    double drop;
    double size;
  };
  for (const Case& c :
       {Case{"dynamic", "int8", "0", 0.5, 0.26}, Case{"weight_only", "int8", "0", 0.5, 0.26},
        Case{"weight_only", "int4", "32", 1.0, 0.16},
        Case{"weight_only", "float16", "0", 0.0, 0.51}}) {
    SCOPED_TRACE(::testing::Message() << c.mode << " " << c.weights);
    set("mode", c.mode);
    set("weights", c.weights);
    set("group_size", c.group_size);
    const QuantizeReport report = run_quantize(job);
    EXPECT_LE(report.verification.drop(), c.drop);
    EXPECT_TRUE(report.reloaded_identical);
    EXPECT_LE(static_cast<double>(report.quantized_bytes),
              c.size * static_cast<double>(report.float_bytes));
  }
}

TEST_F(QuantizeFashion, RefusalLeavesTheOldFileAndNamesACure) {
  std::ofstream(job.output) << "the old file";
  set("weights", "int2");
  set("activations", "uint2");
  set("max_drop", "0.5");
  set("eval_samples", "200");
  job.command = "narrow quantize m.onnx";
  try {
    run_quantize(job);
    FAIL() << "two bits cannot be that good";
  } catch (const QualityBelowTarget& e) {
    EXPECT_EQ(e.code(), ErrorCode::quality_below_target);
    ASSERT_TRUE(e.report().refusal.has_value());
    const GateRefusal& refusal = *e.report().refusal;
    EXPECT_NE(std::string(e.what()).find("worst layers: '"), std::string::npos);
    if (!refusal.keep_float.empty()) {
      ASSERT_TRUE(refusal.measured.has_value());
      EXPECT_LE(refusal.measured->drop(), 0.5);
      EXPECT_EQ(refusal.command.find("narrow quantize m.onnx --keep-float "), 0u);
      EXPECT_NE(e.hint().find(refusal.command), std::string::npos);
      // What the hint says is what the rerun measures.
      for (const std::string& name : refusal.keep_float) set("keep_float", name);
      const QuantizeReport rerun = run_quantize(job);
      EXPECT_EQ(rerun.verification.quantized_value, refusal.measured->quantized_value);
      return;
    }
  }
  EXPECT_EQ(bytes_of(job.output), "the old file");
}

TEST_F(QuantizeFashion, RefusedFilesDoNotAppear) {
  set("weights", "int2");
  set("max_drop", "0");
  set("eval_samples", "100");
  EXPECT_THROW(run_quantize(job), QualityBelowTarget);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST_F(QuantizeFashion, StatisticsAreSavedEditedAndUsed) {
  set("calibration_samples", "50");
  set("eval_samples", "50");
  job.save_statistics = folder.path() / "statistics.json";
  run_quantize(job);
  const std::string first = bytes_of(job.output);
  QuantizeJob again = job;
  again.save_statistics.clear();
  again.statistics = job.save_statistics;
  run_quantize(again);
  EXPECT_EQ(first, bytes_of(job.output));

  Statistics edited = load_statistics(job.save_statistics);
  edited.overrides[edited.values.begin()->first] = {-1, 100};
  save_statistics(edited, again.statistics);
  run_quantize(again);
  EXPECT_NE(first, bytes_of(job.output));

  edited.model_fingerprint = "another";
  save_statistics(edited, again.statistics);
  EXPECT_THROW(run_quantize(again), Error);
}

TEST_F(QuantizeFashion, QuantizedLayersAreRefusedByName) {
  set("calibration_samples", "20");
  set("eval_samples", "20");
  run_quantize(job);
  QuantizeJob again = job;
  again.model = job.output;
  again.output = folder.path() / "twice.onnx";
  try {
    run_quantize(again);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(e.what()).find("already quantized: '"), std::string::npos) << e.what();
  }
  EXPECT_FALSE(fs::exists(again.output));
}

TEST_F(QuantizeFashion, IntegerOnlyListsWhatStaysFloat) {
  set("integer_only", "true");
  set("calibration_samples", "20");
  set("eval_samples", "20");
  try {
    run_quantize(job);
    FAIL() << "log-softmax has no integer form";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(e.what()).find("LogSoftmax"), std::string::npos) << e.what();
  }
}

TEST_F(QuantizeFashion, HoldOutSharesNothingWithCalibration) {
  job.recipe.eval_data.reset();
  set("eval_samples", "100");
  const QuantizeReport report = run_quantize(job);
  EXPECT_EQ(report.verification.samples, 100);
  EXPECT_EQ(report.verification.data.find("hold-out of mnist:"), 0u);
  EXPECT_EQ(report.calibration_samples, 200);
}

TEST_F(QuantizeFashion, WithoutDataWeightsOnlyAreCheckedOnRandomInputs) {
  job.recipe.data.reset();
  job.recipe.eval_data.reset();
  set("mode", "weight_only");
  const QuantizeReport report = run_quantize(job);
  EXPECT_EQ(report.verification.data, "random inputs");
  EXPECT_GT(report.verification.cosine, 0.99);
  EXPECT_FALSE(report.notes.empty());

  set("mode", "static");
  EXPECT_THROW(run_quantize(job), Error);
}

/// The zero_point of the weights of the first convolution.
Tensor dynamic_zero_point(const fs::path& file) {
  const Graph graph = read_onnx(file);
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.is("ConvInteger")) return *graph.constant(node.input(3));
  }
  ADD_FAILURE() << "no ConvInteger in " << file;
  return {};
}

// onnxruntime's ConvInteger takes one zero_point for all channels.
TEST_F(QuantizeFashion, DynamicConvolutionsHaveOneZeroPointWhereTheyCan) {
  set("mode", "dynamic");
  set("eval_samples", "20");
  set("weights", "uint8");
  set("weight_symmetry", "symmetric");  // all zero_points are 128
  run_quantize(job);
  EXPECT_EQ(dynamic_zero_point(job.output).elements(), 1);
  set("weight_symmetry", "asymmetric");
  set("target", "ort");
  run_quantize(job);
  EXPECT_EQ(dynamic_zero_point(job.output).elements(), 1);
}

TEST_F(QuantizeFashion, NotesWhereBitsAreStoredWider) {
  const auto notes = [&] {
    std::string all;
    for (const std::string& note : run_quantize(job).notes) all += note + "\n";
    return all;
  };
  set("calibration_samples", "10");
  set("eval_samples", "10");
  EXPECT_EQ(notes(), "");
  set("weights", "int5");
  EXPECT_NE(notes().find("int5 weights are stored as int8"), std::string::npos) << notes();
  set("mode", "dynamic");
  set("weights", "int4");
  EXPECT_NE(notes().find("int4 weights are stored as int8"), std::string::npos) << notes();
  set("mode", "weight_only");
  EXPECT_EQ(notes(), "") << "packed";
}

TEST_F(QuantizeFashion, CancellingLeavesNothing) {
  std::atomic<bool> cancel{false};
  job.progress = Progress(
      [&](const ProgressEvent& event) { cancel = cancel || event.stage == "calibrate"; }, &cancel);
  try {
    run_quantize(job);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::cancelled);
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace narrow
