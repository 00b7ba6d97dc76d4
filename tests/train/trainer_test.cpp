// SPDX-License-Identifier: Apache-2.0
// The parts of training that know nothing of libtorch.
#include "narrow/train/trainer.h"

#include <gtest/gtest.h>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/train/augment.h"
#include "narrow/train/networks.h"

namespace narrow::train {
namespace {

TEST(LearningRateTest, FollowsItsSchedule) {
  TrainOptions o;
  o.lr = 1;
  o.epochs = 10;
  EXPECT_EQ(learning_rate(o, 0, 100), 1);
  EXPECT_EQ(learning_rate(o, 999, 100), 1);
  o.warmup_steps = 4;
  EXPECT_EQ(learning_rate(o, 0, 100), 0.25);
  EXPECT_EQ(learning_rate(o, 3, 100), 1);
  o.schedule = ScheduleKind::step;
  o.step_epochs = 3;
  EXPECT_DOUBLE_EQ(learning_rate(o, 299, 100), 1);
  EXPECT_DOUBLE_EQ(learning_rate(o, 300, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(o, 900, 100), 0.001);
  o.schedule = ScheduleKind::cosine;
  o.warmup_steps = 0;
  o.min_factor = 0.1;
  EXPECT_DOUBLE_EQ(learning_rate(o, 0, 100), 1);
  EXPECT_NEAR(learning_rate(o, 500, 100), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(o, 1000, 100), 0.1, 1e-12);
}

TEST(TrainOptionsTest, NonsenseIsRefused) {
  const auto refused = [](auto change) {
    TrainOptions o;
    change(o);
    EXPECT_THROW(check_options(o), Error);
  };
  refused([](TrainOptions& o) { o.epochs = -1; });
  refused([](TrainOptions& o) { o.batch = 0; });
  refused([](TrainOptions& o) { o.lr = -1; });
  refused([](TrainOptions& o) { o.ema = 1; });
  refused([](TrainOptions& o) { o.label_smoothing = 1; });
  EXPECT_NO_THROW(check_options(TrainOptions{}));
}

TEST(NamesTest, AreReadAsTheyArePrinted) {
  for (const auto kind : {OptimizerKind::sgd, OptimizerKind::adam, OptimizerKind::adamw}) {
    EXPECT_EQ(optimizer_from_string(to_string(kind)), kind);
  }
  for (const auto kind : {LossKind::cross_entropy, LossKind::mse, LossKind::distill}) {
    EXPECT_EQ(loss_from_string(to_string(kind)), kind);
  }
  EXPECT_EQ(schedule_from_string("cosine"), ScheduleKind::cosine);
  EXPECT_EQ(range_from_string("fixed"), RangeKind::fixed);
  EXPECT_FALSE(optimizer_from_string("adagrad"));
}

TEST(NetworksTest, HaveTheirShapesAndSeeds) {
  for (const Network& network : networks()) {
    Graph a = make_network(network.name, 7);
    infer_shapes(a);
    const Value& y = a.value(a.outputs()[0]);
    ASSERT_TRUE(y.shape.has_value()) << network.name;
    const int64_t classes = std::string(network.name) == "ds_cnn" ? 12 : 10;
    EXPECT_EQ(y.shape->at(1), Dim(classes)) << network.name;
    const Graph b = make_network(network.name, 7);
    const Graph c = make_network(network.name, 8);
    const std::string w = trainable_parameters(a).front();
    const auto of = [&](const Graph& g) { return *g.constant(*g.find_value(w)); };
    EXPECT_TRUE(identical(of(a), of(b)));
  }
  Graph cnn = make_network("mnist_cnn", 1);
  int64_t count = 0;
  for (const std::string& name : trainable_parameters(cnn)) {
    count += cnn.constant(*cnn.find_value(name))->elements();
  }
  EXPECT_EQ(count, 1199882);
  EXPECT_THROW(make_network("mnist_cn", 1), Error);
}

TEST(ParametersTest, AreWhatLayersMultiplyAndAdd) {
  const Graph g = make_network("resnet20", 1);
  const std::vector<std::string> names = trainable_parameters(g);
  const auto has = [&](const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  EXPECT_TRUE(has("conv.weight"));
  EXPECT_TRUE(has("norm.weight"));
  EXPECT_TRUE(has("norm.bias"));
  EXPECT_TRUE(has("fc.bias"));
  EXPECT_FALSE(has("norm.mean"));  // measured, not learned
}

TEST(AugmentTest, MovesAndMirrors) {
  Tensor x(DType::float32, {64, 1, 3, 4});
  for (int64_t i = 0; i < x.elements(); ++i) {
    x.mutable_data<float>()[static_cast<size_t>(i)] = static_cast<float>(i % 12 + 1);
  }
  EXPECT_TRUE(identical(augment(x, {}, 3), x));
  const Tensor y = augment(x, {0, 0, true}, 3);
  int mirrored = 0;
  for (int64_t s = 0; s < 64; ++s) {
    const float* row = y.data<float>().data() + s * 12;
    if (row[0] == 4) {
      ++mirrored;
      EXPECT_EQ(row[3], 1);
      EXPECT_EQ(row[8], 12);
    } else {
      EXPECT_EQ(row[0], 1);
    }
  }
  EXPECT_GT(mirrored, 16);
  EXPECT_LT(mirrored, 48);
  // Every value that is left keeps its neighbours.
  const Tensor z = augment(x, {0, 2, false}, 3);
  for (int64_t s = 0; s < 64; ++s) {
    const float* image = z.data<float>().data() + s * 12;
    for (int i = 0; i + 1 < 12; ++i) {
      if (i % 4 == 3 || image[i] == 0 || image[i + 1] == 0) continue;
      EXPECT_EQ(image[i + 1], image[i] + 1);
    }
  }
  EXPECT_THROW(augment(Tensor(DType::float32, {2, 3}), {0, 1, false}, 3), Error);
  EXPECT_THROW(augment(x, {3, 0, false}, 3), Error);  // nothing would be left
  // A window of a ramp is a ramp, within its ends.
  const Tensor w = augment(x, {2, 0, false}, 3);
  int stretched = 0;
  for (int64_t s = 0; s < 64; ++s) {
    const float* image = w.data<float>().data() + s * 12;
    for (int i = 0; i < 12; ++i) {
      EXPECT_GE(image[i], 1);
      EXPECT_LE(image[i], 12);
      if (i % 4 == 3) continue;
      EXPECT_GE(image[i + 1], image[i]);
    }
    stretched += image[1] - image[0] != 1 ? 1 : 0;
  }
  EXPECT_GT(stretched, 20);
}

}  // namespace
}  // namespace narrow::train
