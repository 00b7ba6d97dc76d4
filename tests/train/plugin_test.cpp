// SPDX-License-Identifier: Apache-2.0
// Training with libtorch: the same graph as the runtime's, gradients, and what comes out. Skipped
// where libnarrow_train.so was not built.
#include "narrow/train/plugin.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "narrow/core/cpu.h"
#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/rng.h"
#include "narrow/graph/op_table.h"
#include "narrow/quant/quantize.h"
#include "narrow/runtime/session.h"
#include "narrow/train/library.h"
#include "narrow/train/networks.h"
#include "train/train_testing.h"

namespace narrow::train {
namespace {

/// Two clouds of points, apart.
class Clouds final : public Dataset {
 public:
  int64_t size() const override { return 400; }
  bool labelled() const override { return true; }
  Batch get(std::span<const int64_t> indices) const override {
    Batch batch;
    Tensor x(DType::float32, {static_cast<int64_t>(indices.size()), 4});
    for (size_t i = 0; i < indices.size(); ++i) {
      Rng rng(static_cast<uint64_t>(indices[i]) + 1);
      const int64_t label = indices[i] % 2;
      for (size_t k = 0; k < 4; ++k) {
        const double centre = (k % 2 == 0) == (label == 0) ? 1 : -1;
        x.mutable_data<float>()[4 * i + k] = static_cast<float>(centre + rng.normal());
      }
      batch.labels.push_back(label);
    }
    batch.inputs["x"] = std::move(x);
    return batch;
  }
  std::string fingerprint() const override { return "clouds"; }
};

Graph small_network() {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("n"), 4});
  const ValueId w1 = g.add_initializer("w1", noise({8, 4}, 1));
  const ValueId b1 = g.add_initializer("b1", Tensor(DType::float32, {8}));
  const NodeId fc1 = g.add_node("Gemm", {x, w1, b1}, {"h"}, {{"transB", int64_t{1}}});
  const NodeId relu = g.add_node("Relu", {g.node(fc1).outputs[0]}, {"r"});
  const ValueId w2 = g.add_initializer("w2", noise({2, 8}, 2));
  const ValueId b2 = g.add_initializer("b2", Tensor(DType::float32, {2}));
  const NodeId fc2 =
      g.add_node("Gemm", {g.node(relu).outputs[0], w2, b2}, {"y"}, {{"transB", int64_t{1}}});
  g.add_output(g.node(fc2).outputs[0]);
  infer_shapes(g);
  return g;
}

TrainPlan small_plan() {
  TrainPlan plan;
  plan.graph = small_network();
  plan.parameters = trainable_parameters(plan.graph);
  return plan;
}

QuantParams grid(float scale, int bits, bool is_signed) {
  Scheme scheme;
  scheme.bits = bits;
  scheme.is_signed = is_signed;
  scheme.symmetry = is_signed ? Symmetry::symmetric : Symmetry::asymmetric;
  QuantParams p;
  p.scheme = scheme;
  p.scale = Tensor::scalar(scale);
  if (!is_signed) p.zero_point = Tensor::scalar<int32_t>(0);
  return p;
}

TrainPlan quantized_plan() {
  TrainPlan plan = small_plan();
  plan.activations["x"] = {grid(0.05F, 8, true), "x"};
  plan.activations["r"] = {grid(0.3F, 4, false), "r"};
  plan.weights["w1"] = grid(0.3F, 4, true);
  plan.weights["w2"] = grid(0.3F, 4, true);
  return plan;
}

TrainOptions options_of(int64_t epochs) {
  TrainOptions o;
  o.epochs = epochs;
  o.batch = 50;
  o.lr = 0.02;
  o.threads = 1;
  return o;
}

double loss_after(const TrainPlan& plan, int64_t epochs) {
  const Clouds data;
  return plugin()->train(plan, data, options_of(epochs), {}, {}).epochs.back().loss;
}

TEST_F(PluginTest, NetworksComputeWhatTheRuntimeComputes) {
  for (const Network& network : networks()) {
    TrainPlan plan;
    plan.graph = make_network(network.name, 3);
    infer_shapes(plan.graph);
    const Value& in = plan.graph.value(plan.graph.inputs()[0]);
    Dims dims = {2, in.shape->at(1).value, in.shape->at(2).value, in.shape->at(3).value};
    const Tensor x = noise(dims, 5);
    Graph deployed = plan.graph;
    turn_off_dropout(deployed);
    const Tensor ours = Session(deployed).run({x}).front();
    const Tensor theirs = plugin()->run(plan, {{in.name, x}}).front();
    ASSERT_EQ(ours.dims(), theirs.dims());
    for (size_t i = 0; i < ours.data<float>().size(); ++i) {
      const float y = ours.data<float>()[i];
      EXPECT_NEAR(theirs.data<float>()[i], y, 1e-4F * (1 + std::fabs(y))) << network.name;
    }
  }
}

TEST_F(PluginTest, GridsRoundAsTheSpecificationDoes) {
  TrainPlan plan;
  Graph& g = plan.graph;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{5, 7});
  const NodeId copy = g.add_node("Identity", {x}, {"y"});
  g.add_output(g.node(copy).outputs[0]);
  infer_shapes(g);
  Tensor input = noise({5, 7}, 9);
  input.mutable_data<float>()[3] = 100;
  input.mutable_data<float>()[4] = -100;
  input.mutable_data<float>()[5] = 0.125F;  // half a step
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool is_signed : {true, false}) {
      const QuantParams p = grid(0.25F, bits, is_signed);
      plan.activations = {{"y", {p, "y"}}};
      const Tensor y = plugin()->run(plan, {{"x", input}}).front();
      EXPECT_TRUE(identical(y, fake_quant(input, p))) << bits << " " << is_signed;
    }
  }
}

TEST_F(PluginTest, LearnsInFloatAndOnAGrid) {
  EXPECT_LT(loss_after(small_plan(), 8), 0.5 * loss_after(small_plan(), 1));
  EXPECT_LT(loss_after(quantized_plan(), 8), 0.6 * loss_after(quantized_plan(), 1));
}

/// x [n, 4] -> batch norm -> dense.
TrainPlan normalised_plan() {
  TrainPlan plan;
  Graph& g = plan.graph;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("n"), 4});
  Tensor ones(DType::float32, {4});
  for (float& v : ones.mutable_data<float>()) v = 1;
  const NodeId norm = g.add_node(
      "BatchNormalization",
      {x, g.add_initializer("scale", ones), g.add_initializer("bias", Tensor(DType::float32, {4})),
       g.add_initializer("mean", Tensor(DType::float32, {4})),
       g.add_initializer("variance", ones.clone())},
      {"n"});
  const NodeId fc =
      g.add_node("Gemm", {g.node(norm).outputs[0], g.add_initializer("w", noise({2, 4}, 2))}, {"y"},
                 {{"transB", int64_t{1}}});
  g.add_output(g.node(fc).outputs[0]);
  infer_shapes(g);
  plan.parameters = trainable_parameters(g);
  return plan;
}

TEST_F(PluginTest, StatisticsOfNormsAreFrozenOrEstimatedAgain) {
  const Clouds data;
  TrainOptions o = options_of(1);
  const auto once = plugin()->train(normalised_plan(), data, o, {}, {}).state.parameters;
  o.epochs = 3;
  const auto moved = plugin()->train(normalised_plan(), data, o, {}, {}).state.parameters;
  o.norm_freeze = 1;
  const auto frozen = plugin()->train(normalised_plan(), data, o, {}, {}).state.parameters;
  EXPECT_TRUE(identical(frozen.at("mean"), once.at("mean")));
  EXPECT_TRUE(identical(frozen.at("variance"), once.at("variance")));
  EXPECT_FALSE(identical(moved.at("mean"), once.at("mean")));
  EXPECT_FALSE(identical(frozen.at("w"), once.at("w")));
  // Over all batches: the mean of the data, and of the batches' variances.
  o.norm_freeze = 0;
  o.norm_batches = 1000;
  const auto again = plugin()->train(normalised_plan(), data, o, {}, {}).state.parameters;
  std::vector<int64_t> all(400);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  const Tensor x = data.get(all).inputs.at("x");
  for (size_t c = 0; c < 4; ++c) {
    double mean = 0;
    double square = 0;
    for (size_t i = 0; i < 400; ++i) mean += x.data<float>()[4 * i + c] / 400;
    for (size_t i = 0; i < 400; ++i) square += std::pow(x.data<float>()[4 * i + c] - mean, 2) / 399;
    EXPECT_NEAR(again.at("mean").data<float>()[c], mean, 1e-5);
    // Batches of 50 have means of their own, which the variance within them lacks.
    EXPECT_NEAR(again.at("variance").data<float>()[c], square, 0.05 * square);
  }
}

TEST_F(PluginTest, ScalesAreLearnedOrStay) {
  const Clouds data;
  TrainOptions o = options_of(2);
  const auto learned = plugin()->train(quantized_plan(), data, o, {}, {}).state;
  EXPECT_NE(learned.activations.at("r").scale.item<float>(), 0.3F);
  EXPECT_GT(learned.weights.at("w1").scale.item<float>(), 0);
  o.qat.ranges = RangeKind::fixed;
  const auto fixed = plugin()->train(quantized_plan(), data, o, {}, {}).state;
  EXPECT_NEAR(fixed.activations.at("r").scale.item<float>(), 0.3F, 1e-6);
  // Of weights they follow the extremes.
  const QuantParams wanted =
      minmax_params(fixed.parameters.at("w1"), fixed.weights.at("w1").scheme);
  EXPECT_NEAR(fixed.weights.at("w1").scale.item<float>(), wanted.scale.item<float>(), 1e-6);
}

/// The same bits after an interruption.
TEST_F(PluginTest, ResumesToTheSameBits) {
  const Clouds data;
  const testing::TemporaryFolder folder;
  for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam, OptimizerKind::adamw}) {
    TrainOptions o = options_of(4);
    o.optimizer = kind;
    o.ema = 0.9;
    const TrainResult whole = plugin()->train(quantized_plan(), data, o, {}, {});
    CheckpointPlace place{(folder.path() / to_string(kind)).string(), "f", false};
    TrainHooks hooks;
    hooks.epoch = [](const EpochRecord& r) {
      if (r.epoch == 3) throw Error(ErrorCode::cancelled, "enough");
    };
    EXPECT_THROW(plugin()->train(quantized_plan(), data, o, hooks, place), Error);
    place.resume = true;
    const TrainResult rest = plugin()->train(quantized_plan(), data, o, {}, place);
    ASSERT_EQ(rest.epochs.size(), 4u);
    for (const auto& [name, x] : whole.state.parameters) {
      EXPECT_TRUE(identical(x, rest.state.parameters.at(name))) << to_string(kind) << name;
    }
    for (const auto& [name, x] : whole.state.weights) {
      EXPECT_TRUE(identical(x.scale, rest.state.weights.at(name).scale)) << name;
    }
    place.fingerprint = "another";
    EXPECT_THROW(plugin()->train(quantized_plan(), data, o, {}, place), Error);
  }
}

TEST_F(PluginTest, Bfloat16ComesNearFloat32) {
  const Clouds data;
  TrainOptions o = options_of(4);
  o.bfloat16 = true;
  if (!cpu_multiplies_bfloat16()) {
    EXPECT_THROW(plugin()->train(quantized_plan(), data, o, {}, {}), Error);
    return;
  }
  const TrainResult half = plugin()->train(quantized_plan(), data, o, {}, {});
  const TrainResult again = plugin()->train(quantized_plan(), data, o, {}, {});
  o.bfloat16 = false;
  const TrainResult whole = plugin()->train(quantized_plan(), data, o, {}, {});
  EXPECT_NEAR(half.epochs[0].loss, whole.epochs[0].loss, 0.02 * whole.epochs[0].loss);
  EXPECT_NE(half.epochs[0].loss, whole.epochs[0].loss);
  for (const auto& [name, x] : half.state.parameters) {
    EXPECT_TRUE(identical(x, again.state.parameters.at(name))) << name;
    EXPECT_EQ(x.dtype(), DType::float32);
  }
}

TEST_F(PluginTest, TheBestEpochComesOut) {
  const Clouds data;
  TrainHooks hooks;
  std::vector<Tensor> seen;
  hooks.evaluate = [&](const TrainState& s) {
    seen.push_back(s.parameters.at("w2"));
    return seen.size() == 2 ? 1.0 : 0.0;
  };
  const TrainResult r = plugin()->train(small_plan(), data, options_of(4), hooks, {});
  EXPECT_EQ(r.best_epoch, 2);
  EXPECT_TRUE(identical(r.state.parameters.at("w2"), seen[1]));
}

TEST_F(PluginTest, ErrorsSayWhere) {
  const Clouds data;
  TrainOptions o = options_of(3);
  o.optimizer = OptimizerKind::sgd;
  o.lr = 1e3;
  o.momentum = 0;
  TrainPlan plan = small_plan();
  Tensor huge = plan.graph.constant(*plan.graph.find_value("w1"))->clone();
  huge.mutable_data<float>()[0] = INFINITY;
  plan.graph.set_constant(*plan.graph.find_value("w1"), huge);
  try {
    plugin()->train(plan, data, o, {}, {});
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::numeric_failure);
    EXPECT_NE(std::string(e.what()).find("w1"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("step 1"), std::string::npos) << e.what();
  }
  o = options_of(1);
  o.loss = LossKind::distill;
  EXPECT_THROW(plugin()->train(small_plan(), data, o, {}, {}), Error);  // no teacher
  plan = small_plan();
  plan.graph.add_output(
      plan.graph.node(plan.graph.add_node("NonZero", {*plan.graph.find_value("h")}, {"nz"}))
          .outputs[0]);
  try {
    plugin()->train(plan, data, options_of(1), {}, {});
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(e.what()).find("NonZero"), std::string::npos);
  }
}

/// A numeric derivative of the loss, through the loop: one step of sgd without momentum moves a
/// parameter by -lr times its gradient.
TEST_F(PluginTest, GradientsAreThoseOfTheLoss) {
  const Clouds data;
  TrainOptions o = options_of(1);
  o.batch = 400;
  o.optimizer = OptimizerKind::sgd;
  o.momentum = 0;
  o.lr = 1;
  const TrainPlan plan = small_plan();
  const TrainResult step = plugin()->train(plan, data, o, {}, {});
  const auto loss_with = [&](const std::string& name, size_t i, float delta) {
    TrainPlan changed = plan;
    const ValueId id = *changed.graph.find_value(name);
    Tensor w = changed.graph.constant(id)->clone();
    w.mutable_data<float>()[i] += delta;
    changed.graph.set_constant(id, w);
    return plugin()->train(changed, data, o, {}, {}).epochs[0].loss;
  };
  for (const std::string name : {"w1", "b1", "w2", "b2"}) {
    const Tensor before = *plan.graph.constant(*plan.graph.find_value(name));
    const Tensor& after = step.state.parameters.at(name);
    for (const size_t i : {size_t{0}, static_cast<size_t>(before.elements() - 1)}) {
      const double gradient = before.data<float>()[i] - after.data<float>()[i];
      const double numeric = (loss_with(name, i, 1e-2F) - loss_with(name, i, -1e-2F)) / 2e-2;
      EXPECT_NEAR(gradient, numeric, 2e-3 + 0.02 * std::fabs(numeric)) << name << i;
    }
  }
}

}  // namespace
}  // namespace narrow::train
