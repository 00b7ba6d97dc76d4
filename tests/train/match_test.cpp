// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/match.h"

#include <gtest/gtest.h>

#include <cmath>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/runtime/session.h"
#include "train/train_testing.h"

namespace narrow::train {
namespace {

/// x [n, 2, 5, 5] -> conv (channels) -> relu -> global average -> [n, channels] -> dense -> y.
Graph network(int64_t channels, uint64_t seed) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("n"), 2, 5, 5});
  const auto add = [&](const char* op, std::vector<ValueId> inputs, const std::string& name,
                       Attributes attributes = {}) {
    const NodeId id =
        g.add_node(op, std::move(inputs), {name + ".out"}, std::move(attributes), "", name);
    return g.node(id).outputs[0];
  };
  const ValueId conv =
      add("Conv", {x, g.add_initializer("conv.w", noise({channels, 2, 3, 3}, seed))}, "conv");
  const ValueId relu = add("Relu", {conv}, "relu");
  const ValueId flat = add("Flatten", {add("GlobalAveragePool", {relu}, "pool")}, "flat");
  const ValueId w = g.add_initializer("fc.w", noise({3, channels}, seed + 1));
  g.add_output(add("Gemm", {flat, w}, "fc", {{"transB", int64_t{1}}}));
  infer_shapes(g);
  return g;
}

class Pictures final : public Dataset {
 public:
  int64_t size() const override { return 24; }
  bool labelled() const override { return false; }
  Batch get(std::span<const int64_t> indices) const override {
    Batch batch;
    Tensor x(DType::float32, {static_cast<int64_t>(indices.size()), 2, 5, 5});
    for (size_t i = 0; i < indices.size(); ++i) {
      const Tensor one = noise({50}, static_cast<uint64_t>(indices[i]) + 1);
      std::copy_n(one.data<float>().data(), 50, x.mutable_data<float>().data() + 50 * i);
    }
    batch.inputs["x"] = std::move(x);
    return batch;
  }
  std::string fingerprint() const override { return "pictures"; }
};

struct Lesson {
  TrainPlan plan;
  std::shared_ptr<Session> teacher;
  TrainHooks hooks;
};

/// The student learns `layer` of a teacher with `channels`.
Lesson lesson(int64_t channels, const std::string& layer) {
  Lesson l;
  Graph teacher = network(channels, 90);
  l.plan.graph = network(4, 10);
  FeatureMatch match{{}, add_feature(teacher, layer)};
  match.student = add_feature(l.plan.graph, layer);
  check_match(match);
  l.plan.matches = {match};
  l.plan.parameters = trainable_parameters(l.plan.graph);
  l.teacher = std::make_shared<Session>(teacher);
  l.hooks.teacher = [session = l.teacher](const std::map<std::string, Tensor>& inputs) {
    return session->run({inputs.at("x")});
  };
  return l;
}

TrainOptions options_of(int64_t epochs, double lr) {
  TrainOptions o;
  o.epochs = epochs;
  o.batch = 24;
  o.optimizer = OptimizerKind::sgd;
  o.momentum = 0;
  o.lr = lr;
  o.loss = LossKind::mse;
  o.threads = 1;
  o.match.pairs = {{"relu", "relu"}};
  return o;
}

TEST(MatchTest, NamesAreValuesOrNodes) {
  EXPECT_EQ(parse_feature_pair("a").teacher, "a");
  EXPECT_EQ(parse_feature_pair("a=b").student, "a");
  EXPECT_EQ(parse_feature_pair("a=b").teacher, "b");
  EXPECT_THROW(parse_feature_pair("a="), Error);
  EXPECT_THROW(parse_feature_pair(""), Error);
  Graph g = network(4, 1);
  const Feature by_node = add_feature(g, "relu");
  const Feature by_value = add_feature(g, "relu.out");
  EXPECT_EQ(by_node.output, 1u);
  EXPECT_EQ(by_value.output, 1u);
  EXPECT_EQ(by_node.channels, 4);
  EXPECT_EQ(by_node.dims, (Dims{-1, 4, 3, 3}));
  EXPECT_EQ(add_feature(g, "fc").output, 0u);
  try {
    add_feature(g, "rellu");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.hint()).find("relu"), std::string::npos);
  }
  EXPECT_THROW(add_feature(g, "conv.w"), Error);
}

TEST(MatchTest, OnlyChannelsMayDiffer) {
  Graph a = network(4, 1);
  Graph b = network(6, 2);
  const FeatureMatch match{add_feature(a, "conv"), add_feature(b, "relu")};
  EXPECT_NO_THROW(check_match(match));
  EXPECT_TRUE(match.projects());
  EXPECT_THROW(check_match({add_feature(a, "conv"), add_feature(b, "flat")}), Error);
  EXPECT_THROW(check_match({add_feature(a, "conv"), add_feature(b, "pool")}), Error);
}

TEST_F(PluginTest, FeaturesOfTheTeacherAreLearned) {
  const Pictures data;
  for (const int64_t channels : {4, 7}) {  // 7: through a projection
    for (const char* layer : {"relu", "flat"}) {
      const Lesson l = lesson(channels, layer);
      TrainOptions o = options_of(60, 3e-3);
      o.optimizer = OptimizerKind::adam;
      o.lr = 0.02;
      const TrainResult r = plugin()->train(l.plan, data, o, l.hooks, {});
      EXPECT_LT(r.epochs.back().loss, 0.5 * r.epochs.front().loss) << channels << layer;
      EXPECT_FALSE(r.state.parameters.contains("projection.relu.out"));
    }
  }
}

/// Without a projection the loss is the outputs' mean square plus weight times the features', the
/// latter by the teacher's mean square.
TEST_F(PluginTest, TheLossOfFeaturesIsWhatItSays) {
  const Pictures data;
  const Lesson l = lesson(4, "relu");
  std::vector<int64_t> all(24);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  const Tensor x = data.get(all).inputs.at("x");
  const std::vector<Tensor> ours = Session(l.plan.graph).run({x});
  const std::vector<Tensor> theirs = l.teacher->run({x});
  const auto mean_square = [](const Tensor& a, const Tensor* b) {
    double sum = 0;
    for (size_t i = 0; i < a.data<float>().size(); ++i) {
      const double d = a.data<float>()[i] - (b == nullptr ? 0 : b->data<float>()[i]);
      sum += d * d;
    }
    return sum / static_cast<double>(a.elements());
  };
  TrainOptions o = options_of(1, 0);
  o.match.weight = 0.25;
  const double loss = plugin()->train(l.plan, data, o, l.hooks, {}).epochs[0].loss;
  const double wanted = mean_square(ours[0], &theirs[0]) +
                        0.25 * mean_square(ours[1], &theirs[1]) / mean_square(theirs[1], nullptr);
  EXPECT_NEAR(loss, wanted, 1e-5 * wanted);
}

TEST_F(PluginTest, FeaturesHaveTheirGradients) {
  const Pictures data;
  for (const int64_t channels : {4, 7}) {
    const Lesson l = lesson(channels, "relu");
    const auto step = plugin()->train(l.plan, data, options_of(1, 1), l.hooks, {});
    const ValueId id = *l.plan.graph.find_value("conv.w");
    const Tensor before = *l.plan.graph.constant(id);
    for (const size_t i : {size_t{0}, size_t{31}, size_t{71}}) {
      const auto loss_with = [&](float delta) {
        TrainPlan changed = l.plan;
        Tensor w = before.clone();
        w.mutable_data<float>()[i] += delta;
        changed.graph.set_constant(id, w);
        return plugin()->train(changed, data, options_of(1, 0), l.hooks, {}).epochs[0].loss;
      };
      const double gradient =
          before.data<float>()[i] - step.state.parameters.at("conv.w").data<float>()[i];
      const double numeric = (loss_with(1e-3F) - loss_with(-1e-3F)) / 2e-3;
      EXPECT_NEAR(gradient, numeric, 2e-3 + 0.02 * std::fabs(numeric)) << channels << " " << i;
    }
  }
}

TEST_F(PluginTest, ProjectionsAreInTheCheckpoint) {
  const Pictures data;
  const testing::TemporaryFolder folder;
  Lesson l = lesson(7, "relu");
  TrainOptions o = options_of(4, 0.01);
  o.optimizer = OptimizerKind::adam;
  const TrainResult whole = plugin()->train(l.plan, data, o, l.hooks, {});
  CheckpointPlace place{folder.file("c"), "f", false};
  TrainHooks stops = l.hooks;
  stops.epoch = [](const EpochRecord& r) {
    if (r.epoch == 3) throw Error(ErrorCode::cancelled, "enough");
  };
  EXPECT_THROW(plugin()->train(l.plan, data, o, stops, place), Error);
  place.resume = true;
  const TrainResult rest = plugin()->train(l.plan, data, o, l.hooks, place);
  ASSERT_EQ(rest.epochs.size(), 4u);
  EXPECT_EQ(rest.epochs.back().loss, whole.epochs.back().loss);
  for (const auto& [name, x] : whole.state.parameters) {
    EXPECT_TRUE(identical(x, rest.state.parameters.at(name))) << name;
  }
}

TEST_F(PluginTest, MatchingNeedsATeacher) {
  const Pictures data;
  const Lesson l = lesson(4, "relu");
  EXPECT_THROW(plugin()->train(l.plan, data, options_of(1, 0.1), {}, {}), Error);
}

}  // namespace
}  // namespace narrow::train
