// SPDX-License-Identifier: Apache-2.0
// Ways in which grids learn: all end on linear grids, and go on from checkpoints to the same bits.
#include <algorithm>
#include <cmath>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/quant/quantize.h"
#include "narrow/train/checkpoint.h"
#include "narrow/train/networks.h"
#include "narrow/train/ranks.h"
#include "train/train_testing.h"

namespace narrow::train {
namespace {

QuantParams grid(float scale, int bits, bool is_signed, int32_t zero = 0) {
  QuantParams p;
  p.scheme.bits = bits;
  p.scheme.is_signed = is_signed;
  p.scheme.symmetry = is_signed ? Symmetry::symmetric : Symmetry::asymmetric;
  p.scale = Tensor::scalar(scale);
  if (!is_signed) p.zero_point = Tensor::scalar<int32_t>(zero);
  return p;
}

/// Two opposite corners against the two others.
class Corners final : public Dataset {
 public:
  int64_t size() const override { return 300; }
  bool labelled() const override { return true; }
  Batch get(std::span<const int64_t> indices) const override {
    Batch batch;
    Tensor x(DType::float32, {static_cast<int64_t>(indices.size()), 2});
    for (size_t i = 0; i < indices.size(); ++i) {
      Rng rng(static_cast<uint64_t>(indices[i]) + 9);
      const auto a = static_cast<float>(rng.normal());
      const auto b = static_cast<float>(rng.normal());
      x.mutable_data<float>()[2 * i] = a;
      x.mutable_data<float>()[2 * i + 1] = b;
      batch.labels.push_back(a * b > 0 ? 1 : 0);
    }
    batch.inputs["x"] = std::move(x);
    return batch;
  }
  std::string fingerprint() const override { return "corners"; }
};

/// Noise as the network's input, ten classes.
class Pictures final : public Dataset {
 public:
  explicit Pictures(const Graph& graph) : input_(graph.value(graph.inputs()[0])) {}
  int64_t size() const override { return 24; }
  bool labelled() const override { return true; }
  Batch get(std::span<const int64_t> indices) const override {
    Batch batch;
    const SymbolicShape& shape = *input_.shape;
    const Dims dims = {static_cast<int64_t>(indices.size()), shape[1].value, shape[2].value,
                       shape[3].value};
    batch.inputs[input_.name] = noise(dims, static_cast<uint64_t>(indices[0]) + 1);
    for (const int64_t i : indices) batch.labels.push_back(i % 10);
    return batch;
  }
  std::string fingerprint() const override { return "pictures"; }

 private:
  Value input_;
};

/// Gemm, Swish (below 0 in places), Gemm; all on grids of 4 bits.
TrainPlan plan_of_grids() {
  TrainPlan plan;
  Graph& g = plan.graph;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("n"), 2});
  const ValueId w1 = g.add_initializer("w1", noise({16, 2}, 1));
  const ValueId b1 = g.add_initializer("b1", noise({16}, 2));
  const NodeId fc1 = g.add_node("Gemm", {x, w1, b1}, {"h"}, {{"transB", int64_t{1}}});
  const NodeId bend = g.add_node("Swish", {g.node(fc1).outputs[0]}, {"r"});
  const ValueId w2 = g.add_initializer("w2", noise({2, 16}, 3));
  const ValueId b2 = g.add_initializer("b2", Tensor(DType::float32, {2}));
  const NodeId fc2 =
      g.add_node("Gemm", {g.node(bend).outputs[0], w2, b2}, {"y"}, {{"transB", int64_t{1}}});
  g.add_output(g.node(fc2).outputs[0]);
  infer_shapes(g);
  plan.parameters = trainable_parameters(g);
  plan.activations["x"] = {grid(0.05F, 8, true), "x"};
  plan.activations["r"] = {grid(0.2F, 4, false, 2), "r"};
  plan.weights["w1"] = grid(0.4F, 4, true);
  plan.weights["w2"] = grid(0.4F, 4, true);
  return plan;
}

TrainOptions options_of(int64_t epochs, double lr) {
  TrainOptions o;
  o.epochs = epochs;
  o.batch = 50;
  o.lr = lr;
  o.threads = 1;
  return o;
}

constexpr QatMethod kMethods[] = {QatMethod::lsq, QatMethod::lsq_plus, QatMethod::pact,
                                  QatMethod::dorefa, QatMethod::wrpn};

std::vector<QatOptions> all_ways() {
  std::vector<QatOptions> ways;
  for (const QatMethod method : kMethods) {
    for (const RangeKind ranges :
         {RangeKind::learned, RangeKind::fixed, RangeKind::moving_average}) {
      QatOptions o;
      o.method = method;
      o.ranges = ranges;
      ways.push_back(o);
    }
  }
  QatOptions freezing;
  freezing.oscillation = 0.015;
  freezing.oscillation_start = 0.015;
  ways.push_back(freezing);
  return ways;
}

std::string name_of(const QatOptions& o) {
  return std::string(to_string(o.method)) + " " + to_string(o.ranges) +
         (o.oscillation > 0 ? " freezing" : "");
}

/// What a state is worth as plain grids, which is how it is exported.
double loss_as_exported(const TrainState& state) {
  TrainPlan plan = plan_of_grids();
  set_parameters(plan.graph, state);
  for (auto& [name, params] : plan.weights) params = state.weights.at(name);
  for (auto& [name, value] : plan.activations) value.params = state.activations.at(name);
  return plugin()->train(plan, Corners(), options_of(1, 0), {}, {}).epochs[0].loss;
}

TEST_F(PluginTest, EveryQuantizerEndsOnTheGridsItTrained) {
  for (const QatOptions& way : all_ways()) {
    TrainOptions o = options_of(12, 0.02);
    o.qat = way;
    const TrainResult r = plugin()->train(plan_of_grids(), Corners(), o, {}, {});
    EXPECT_LT(loss_as_exported(r.state), r.epochs[0].loss) << name_of(way);
    for (const auto& [name, p] : r.state.weights) {
      EXPECT_GT(p.scale.item<float>(), 0) << name_of(way);
    }
    // Nothing is learned at a rate of 0, and what is exported is what was computed.
    o = options_of(1, 0);
    o.qat = way;
    o.qat.clip_decay = 0;
    o.qat.freeze_step = 1;
    o.qat.range_momentum = 0.999999;
    const TrainResult still = plugin()->train(plan_of_grids(), Corners(), o, {}, {});
    EXPECT_NEAR(loss_as_exported(still.state), still.epochs[0].loss, 1e-4 * still.epochs[0].loss)
        << name_of(way);
  }
}

TEST_F(PluginTest, EveryQuantizerResumesBetweenEpochs) {
  const Corners data;
  const testing::TemporaryFolder folder;
  for (const QatOptions& way : all_ways()) {
    TrainOptions o = options_of(3, 0.02);
    o.qat = way;
    const TrainResult whole = plugin()->train(plan_of_grids(), data, o, {}, {});
    CheckpointPlace place{(folder.path() / "c").string(), "f", false, 2};
    // Ends in the second epoch, a batch after a checkpoint.
    TrainHooks hooks;
    hooks.progress = Progress([](const ProgressEvent& e) {
      if (e.done == 300 + 5 * 50) throw Error(ErrorCode::cancelled, "enough");
    });
    EXPECT_THROW(plugin()->train(plan_of_grids(), data, o, hooks, place), Error);
    place.resume = true;
    const TrainResult rest = plugin()->train(plan_of_grids(), data, o, {}, place);
    ASSERT_EQ(rest.epochs.size(), 3u);
    EXPECT_EQ(rest.epochs[1].loss, whole.epochs[1].loss) << name_of(way);
    for (const auto& [name, x] : whole.state.parameters) {
      EXPECT_TRUE(identical(x, rest.state.parameters.at(name))) << name_of(way) << name;
    }
    for (const auto& [name, x] : whole.state.activations) {
      const QuantParams& other = rest.state.activations.at(name);
      EXPECT_TRUE(identical(x.scale, other.scale)) << name_of(way) << name;
      if (!x.zero_point.defined()) continue;
      EXPECT_TRUE(identical(x.zero_point, other.zero_point)) << name_of(way) << name;
    }
  }
}

/// What other devices compute with is held against the engine's own loops on this one.
TEST_F(PluginTest, LibtorchsFunctionsRoundAndPoolAlike) {
  for (const QatOptions& way : all_ways()) {
    TrainOptions o = options_of(1, 0.02);
    o.optimizer = OptimizerKind::sgd;
    o.qat = way;
    const Corners data;
    const TrainResult own = plugin()->train(plan_of_grids(), data, o, {}, {});
    o.portable = true;
    const TrainResult other = plugin()->train(plan_of_grids(), data, o, {}, {});
    EXPECT_NEAR(own.epochs[0].loss, other.epochs[0].loss, 1e-3) << name_of(way);
    for (const auto& [name, x] : own.state.parameters) {
      const Tensor& y = other.state.parameters.at(name);
      for (size_t i = 0; i < x.data<float>().size(); ++i) {
        EXPECT_NEAR(x.data<float>()[i], y.data<float>()[i], 2e-3) << name_of(way) << name;
      }
    }
    for (const auto& [name, x] : own.state.activations) {
      const float scale = x.scale.item<float>();
      EXPECT_NEAR(other.state.activations.at(name).scale.item<float>(), scale, 2e-3 * scale)
          << name_of(way) << name;
    }
  }
}

TEST_F(PluginTest, NetworksTrainAlikeWithLibtorchsFunctions) {
  TrainPlan plan;
  plan.graph = make_network("mnist_cnn", 3);
  infer_shapes(plan.graph);
  turn_off_dropout(plan.graph);
  plan.parameters = trainable_parameters(plan.graph);
  const Pictures data(plan.graph);
  TrainOptions o = options_of(1, 0.02);
  o.optimizer = OptimizerKind::sgd;
  o.batch = 8;
  const TrainResult own = plugin()->train(plan, data, o, {}, {});
  o.portable = true;
  const TrainResult other = plugin()->train(plan, data, o, {}, {});
  EXPECT_NEAR(own.epochs[0].loss, other.epochs[0].loss, 1e-4);
}

/// One sample, again and again.
class Same final : public Dataset {
 public:
  int64_t size() const override { return 8; }
  bool labelled() const override { return true; }
  Batch get(std::span<const int64_t> indices) const override {
    const std::vector<int64_t> first(indices.size(), 0);
    return Corners().get(first);
  }
  std::string fingerprint() const override { return "same"; }
};

/// Another rank that has what this one has.
class Twin final : public Ranks {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  void sum(std::span<float> values) override {
    for (float& v : values) v *= 2;
  }
  double from_first(double value) override { return value; }
  std::vector<std::string> gather(const std::string& bytes) override { return {bytes, bytes}; }
};

TEST_F(PluginTest, GridsOfTwoRanksGoAtThePaceOfTheWholeBatch) {
  const testing::TemporaryFolder folder;
  TrainPlan plan = plan_of_grids();
  plan.activations["r"] = {grid(0.1F, 4, false, 10), "r"};
  TrainOptions o = options_of(1, 0.05);
  o.optimizer = OptimizerKind::sgd;
  o.qat.method = QatMethod::lsq_plus;
  const auto learned = [&](int64_t batch, Ranks* ranks) {
    o.batch = batch;
    TrainHooks hooks;
    hooks.ranks = ranks;
    const CheckpointPlace place{(folder.path() / std::to_string(batch)).string(), "f", false};
    plugin()->train(plan, Same(), o, hooks, place);
    return read_checkpoint(place).tensors;
  };
  Twin twin;
  const auto one = learned(8, nullptr);
  const auto two = learned(4, &twin);
  for (const char* name : {"now.value_scale.r", "now.value_zero.r"}) {
    const float x = one.at(name).data<float>()[0];
    EXPECT_NEAR(two.at(name).data<float>()[0], x, 1e-6 * (1 + std::fabs(x))) << name;
  }
  EXPECT_NE(one.at("now.value_zero.r").data<float>()[0], 10);
}

TEST_F(PluginTest, ZeroPointsAreLearnedByLsqPlusAlone) {
  for (const QatMethod method : {QatMethod::lsq, QatMethod::lsq_plus}) {
    TrainOptions o = options_of(20, 0.05);
    o.qat.method = method;
    TrainPlan plan = plan_of_grids();
    plan.activations["r"] = {grid(0.1F, 4, false, 10), "r"};  // too much room below 0
    const TrainState s = plugin()->train(plan, Corners(), o, {}, {}).state;
    const bool moved = s.activations.at("r").zero_point.item<int32_t>() != 10;
    EXPECT_EQ(moved, method == QatMethod::lsq_plus);
  }
}

TEST_F(PluginTest, RangesFollowTheirExtremesUntilTheyAreFrozen) {
  TrainOptions o = options_of(1, 0);
  o.qat.ranges = RangeKind::moving_average;
  o.qat.range_momentum = 0;
  o.batch = 300;
  const TrainState s = plugin()->train(plan_of_grids(), Corners(), o, {}, {}).state;
  TrainPlan plan = plan_of_grids();
  plan.activations.clear();
  plan.graph.add_output(*plan.graph.find_value("r"));
  plan.activations["x"] = {s.activations.at("x"), "x"};
  for (auto& [name, params] : plan.weights) params = s.weights.at(name);
  std::vector<int64_t> all(300);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  const Tensor r = plugin()->run(plan, {{"x", Corners().get(all).inputs.at("x")}}).at(1);
  const auto [low, high] = std::minmax_element(r.data<float>().begin(), r.data<float>().end());
  const QuantParams wanted =
      params_from_ranges({&*low, 1}, {&*high, 1}, {}, s.activations.at("r").scheme);
  EXPECT_NEAR(s.activations.at("r").scale.item<float>(), wanted.scale.item<float>(), 1e-6);
  EXPECT_TRUE(identical(s.activations.at("r").zero_point, wanted.zero_point));
}

/// Two values of one group move its range within a batch.
TEST_F(PluginTest, RangesOfGroupsMoveWithinABatch) {
  TrainPlan plan = plan_of_grids();
  plan.activations["h"] = {plan.activations.at("r").params, "r"};
  TrainOptions o = options_of(2, 0.01);
  o.qat.ranges = RangeKind::moving_average;
  const TrainState s = plugin()->train(plan, Corners(), o, {}, {}).state;
  EXPECT_TRUE(identical(s.activations.at("h").scale, s.activations.at("r").scale));
}

TEST_F(PluginTest, WeightsThatFlipAreFrozen) {
  TrainOptions o = options_of(20, 0.05);
  o.qat.oscillation = 0.015;
  o.qat.oscillation_start = 0.015;
  const TrainState s = plugin()->train(plan_of_grids(), Corners(), o, {}, {}).state;
  const float scale = s.weights.at("w2").scale.item<float>();
  int on_grid = 0;
  for (const float w : s.parameters.at("w2").data<float>()) {
    on_grid += std::fabs(w / scale - std::nearbyint(w / scale)) < 1e-5F ? 1 : 0;
  }
  EXPECT_GT(on_grid, 0);
}

TEST(QatOptionsTest, NamesAreReadAsTheyArePrinted) {
  for (const QatMethod method : kMethods) {
    EXPECT_EQ(qat_method_from_string(to_string(method)), method);
  }
  EXPECT_EQ(range_from_string("moving_average"), RangeKind::moving_average);
  EXPECT_FALSE(qat_method_from_string("lsq++"));
  QatOptions o;
  o.oscillation = 0.5;
  EXPECT_THROW(check_options(o), Error);  // the threshold would rise
}

}  // namespace
}  // namespace narrow::train
