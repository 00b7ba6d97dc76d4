// SPDX-License-Identifier: Apache-2.0
// Pruning while training, through libnarrow_train.so. Skipped where that was not built.
#include <gtest/gtest.h>

#include <cmath>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/graph/op_table.h"
#include "narrow/quant/quantize.h"
#include "narrow/train/checkpoint.h"
#include "narrow/train/library.h"
#include "train/train_testing.h"

namespace narrow::train {
namespace {

/// The sign of the first of eight numbers is the class.
class Signs final : public Dataset {
 public:
  int64_t size() const override { return 200; }
  bool labelled() const override { return true; }
  Batch get(std::span<const int64_t> indices) const override {
    Batch batch;
    Tensor x(DType::float32, {static_cast<int64_t>(indices.size()), 8});
    for (size_t i = 0; i < indices.size(); ++i) {
      Rng rng(static_cast<uint64_t>(indices[i]) + 7);
      for (size_t k = 0; k < 8; ++k) {
        x.mutable_data<float>()[8 * i + k] = static_cast<float>(rng.normal());
      }
      batch.labels.push_back(x.data<float>()[8 * i] > 0 ? 1 : 0);
    }
    batch.inputs["x"] = std::move(x);
    return batch;
  }
  std::string fingerprint() const override { return "signs"; }
};

int64_t zeros(const Tensor& x) {
  int64_t count = 0;
  for (const float v : x.data<float>()) count += v == 0;
  return count;
}

class PruningTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (plugin() == nullptr) GTEST_SKIP() << "libtorch was not there when this was built";
    Graph& g = plan_.graph;
    const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("n"), 8});
    const NodeId fc1 = g.add_node("Gemm", {x, g.add_initializer("w1", noise({20, 8}, 1))}, {"h"},
                                  {{"transB", int64_t{1}}}, "", "fc1");
    const NodeId relu = g.add_node("Relu", {g.node(fc1).outputs[0]}, {"r"});
    const NodeId fc2 =
        g.add_node("Gemm", {g.node(relu).outputs[0], g.add_initializer("w2", noise({2, 20}, 2))},
                   {"y"}, {{"transB", int64_t{1}}}, "", "fc2");
    g.add_output(g.node(fc2).outputs[0]);
    infer_shapes(g);
    plan_.parameters = trainable_parameters(g);
    plan_.prune = find_targets(g, {});
    plan_.regularize = plan_.prune;
  }

  TrainOptions options(const std::string& prune, int64_t epochs) const {
    TrainOptions o;
    o.epochs = epochs;
    o.batch = 20;
    o.lr = 0.02;
    o.threads = 1;
    if (!prune.empty()) o.prune = parse_prune(prune);
    return o;
  }
  TrainResult train(const TrainOptions& o, const TrainHooks& hooks = {},
                    const CheckpointPlace& place = {}) const {
    return plugin()->train(plan_, data_, o, hooks, place);
  }

  Signs data_;
  TrainPlan plan_;
};

TEST_F(PruningTest, EndsAtTheSparsityAskedFor) {
  for (const char* text : {"magnitude,sparsity=0.8", "level,sparsity=0.8", "movement,sparsity=0.8",
                           "magnitude,sparsity=0.8,scope=layer,frequency=3"}) {
    const TrainResult r = train(options(text, 6));
    const int64_t all = zeros(r.state.parameters.at("w1")) + zeros(r.state.parameters.at("w2"));
    EXPECT_EQ(all, 160) << text;  // of 200
    EXPECT_LT(r.epochs.back().loss, r.epochs.front().loss) << text;
  }
  const Tensor w = train(options("magnitude,pattern=2:4", 4)).state.parameters.at("w1");
  for (size_t i = 0; i < 160; i += 4) {
    int64_t left = 0;
    for (size_t j = 0; j < 4; ++j) left += w.data<float>()[i + j] != 0;
    EXPECT_EQ(left, 2);
  }
  EXPECT_GT(zeros(train(options("sensitivity,k=1", 4)).state.parameters.at("w1")), 60);
  const int64_t cut = zeros(train(options("splicing,k=0", 4)).state.parameters.at("w1"));
  EXPECT_GT(cut, 30);
  EXPECT_LT(cut, 130);
}

TEST_F(PruningTest, WhatIsPrunedGoesOnLearning) {
  const testing::TemporaryFolder folder;
  const CheckpointPlace place{folder.file("c"), "f", false};
  const TrainResult r = train(options("level,sparsity=0.5", 1), {}, place);
  const Tensor dense = read_checkpoint(place).tensors.at("now.parameter.w1");
  const Tensor first = *plan_.graph.constant(*plan_.graph.find_value("w1"));
  const Tensor& seen = r.state.parameters.at("w1");
  int64_t moved = 0;
  for (size_t i = 0; i < 160; ++i) {
    if (seen.data<float>()[i] == 0) moved += dense.data<float>()[i] != first.data<float>()[i];
  }
  EXPECT_EQ(zeros(seen), 80);
  EXPECT_GT(moved, 50);  // the others are behind a Relu that is shut
}

TEST_F(PruningTest, GivenZerosAreKeptOnAGrid) {
  const ValueId id = *plan_.graph.find_value("w1");
  const Tensor before =
      masked(*plan_.graph.constant(id),
             masks_at_once(plan_.graph, plan_.prune, parse_prune("level,sparsity=0.75")).at("w1"));
  plan_.graph.set_constant(id, before);
  Scheme scheme;
  plan_.weights["w1"] = minmax_params(before, scheme);
  for (const RangeKind ranges : {RangeKind::learned, RangeKind::fixed}) {
    TrainOptions o = options("keep", 2);
    o.qat.ranges = ranges;
    o.ema = 0.5;
    const TrainState state = train(o).state;
    const Tensor& after = state.parameters.at("w1");
    for (size_t i = 0; i < 160; ++i) {
      const bool was = before.data<float>()[i] == 0;
      EXPECT_EQ(after.data<float>()[i] == 0, was) << i;
    }
    const auto codes = quantize(after, state.weights.at("w1")).to_ints();
    EXPECT_GE(std::count(codes.begin(), codes.end(), 0), 120);
  }
}

TEST_F(PruningTest, AStateBeforeTheEndDoesNotComeOut) {
  TrainHooks hooks;
  double metric = 100;
  hooks.evaluate = [&](const TrainState&) { return metric--; };  // worse and worse
  const TrainResult r = train(options("magnitude,sparsity=0.8,end=3", 5), hooks);
  EXPECT_EQ(r.best_epoch, 3);
  EXPECT_EQ(zeros(r.state.parameters.at("w1")) + zeros(r.state.parameters.at("w2")), 160);
}

TEST_F(PruningTest, ResumesToTheSameBits) {
  const testing::TemporaryFolder folder;
  for (const char* text : {"movement,sparsity=0.8,end=3.5", "splicing,k=0.1"}) {
    const TrainOptions o = options(text, 4);
    const TrainResult whole = train(o);
    CheckpointPlace place{folder.file(text), "f", false};
    TrainHooks hooks;
    hooks.epoch = [](const EpochRecord& r) {
      if (r.epoch == 3) throw Error(ErrorCode::cancelled, "enough");
    };
    EXPECT_THROW(train(o, hooks, place), Error);
    place.resume = true;
    const TrainResult rest = train(o, {}, place);
    for (const auto& [name, x] : whole.state.parameters) {
      EXPECT_TRUE(identical(x, rest.state.parameters.at(name))) << text << name;
    }
  }
}

TEST_F(PruningTest, PenaltiesMakeWeightsSmall) {
  const auto norm = [](const Tensor& x) {
    double sum = 0;
    for (const float v : x.data<float>()) sum += std::fabs(v);
    return sum;
  };
  const double plain = norm(train(options("", 4)).state.parameters.at("w1"));
  TrainOptions o = options("", 4);
  o.regularize = parse_regularize("l1=0.01");
  EXPECT_LT(norm(train(o).state.parameters.at("w1")), 0.8 * plain);
  // By whole inputs: the seven that say nothing go before the first.
  o.epochs = 12;
  o.regularize = parse_regularize("group_lasso=0.01,groups=channels,layers=fc1");
  const Tensor w = train(o).state.parameters.at("w1");
  double first = 0;
  double others = 0;
  for (size_t i = 0; i < 160; ++i) (i % 8 == 0 ? first : others) += std::fabs(w.data<float>()[i]);
  EXPECT_GT(first, 2 * others / 7);
}

}  // namespace
}  // namespace narrow::train
