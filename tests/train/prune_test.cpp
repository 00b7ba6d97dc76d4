// SPDX-License-Identifier: Apache-2.0
// Pruning without libtorch: texts, schedules, masks, counting.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/graph/qdq.h"
#include "narrow/quant/quantize.h"
#include "narrow/train/networks.h"
#include "narrow/train/prune/masks.h"
#include "narrow/train/prune/prune_options.h"
#include "train/train_testing.h"

namespace narrow::train {
namespace {

int64_t zeros(const Tensor& mask) {
  int64_t count = 0;
  for (const float v : mask.data<float>()) count += v == 0;
  return count;
}

std::vector<float> values(const Tensor& x) {
  const auto data = x.data<float>();
  return {data.begin(), data.end()};
}

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.message() + " / " + e.hint();
  }
  return "no error";
}

TEST(PruneOptionsTest, AreReadAsTheyArePrinted) {
  for (const char* text :
       {"magnitude,sparsity=0.8,scope=global", "level,sparsity=0.5,scope=layer",
        "sensitivity,k=0.7", "splicing,k=1,low=0.8,high=1.2,frequency=5",
        "movement,sparsity=0.9,scope=layer,initial=0.1,start=1,end=2.5",
        "magnitude,sparsity=0.5,scope=layer,pattern=2:4,layers=conv*,except=conv1",
        "level,sparsity=0.7,scope=global,pattern=1x4", "keep"}) {
    EXPECT_EQ(to_text(parse_prune(text)), text);
  }
  EXPECT_EQ(parse_prune("magnitude,pattern=1:4").sparsity, 0.75);
  EXPECT_EQ(to_text(parse_regularize("group_lasso=0.001,groups=channels,layers=fc")),
            "l1=0,group_lasso=0.001,groups=channels,layers=fc");
}

TEST(PruneOptionsTest, NonsenseIsNamed) {
  const auto has = [](const std::string& text, const char* part) {
    const std::string message = message_of([&] { check_options(parse_prune(text), 3); });
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  has("magnitud", "magnitude");
  has("magnitude,sparsty=0.5", "sparsity");
  has("magnitude,sparsity=1", "sparsity");
  has("magnitude,sparsity", "KEY=VALUE");
  has("magnitude,pattern=4:2", "2:4");
  has("magnitude,pattern=2:4,sparsity=0.8", "0.5");
  has("magnitude,sparsity=0.5,initial=0.6", "initial");
  has("splicing,low=2,high=1", "low");
  has("splicing,pattern=1x4", "single weights");
  has("magnitude,end=4", "end");
  has("magnitude,start=3", "start");
  EXPECT_NE(message_of([] { check_options(parse_prune("movement"), 0); }).find("--epochs"),
            std::string::npos);
  EXPECT_THROW(parse_regularize("l1=0"), Error);
  EXPECT_THROW(parse_regularize("lasso=1"), Error);
}

TEST(PruneScheduleTest, RisesAsACubic) {
  PruneOptions o = parse_prune("magnitude,sparsity=0.8,start=1,end=3");
  const PruneWindow w = window_of(o, 100, 400);
  EXPECT_EQ(w.first, 100);
  EXPECT_EQ(w.last, 300);
  EXPECT_EQ(sparsity_at(o, w, 99), 0);
  EXPECT_EQ(sparsity_at(o, w, 100), 0);
  EXPECT_NEAR(sparsity_at(o, w, 200), 0.8 * (1 - 0.125), 1e-12);
  EXPECT_EQ(sparsity_at(o, w, 300), 0.8);
  EXPECT_EQ(sparsity_at(o, w, 400), 0.8);
  int masks = 0;
  for (int64_t step = 0; step <= 400; ++step) masks += w.due(step);
  EXPECT_GE(masks, 50);
  EXPECT_TRUE(w.due(300));
  EXPECT_FALSE(w.due(301));
  // Half of the run where nothing is said; one mask for level.
  EXPECT_EQ(window_of(parse_prune("magnitude"), 100, 400).last, 200);
  EXPECT_EQ(window_of(parse_prune("level,start=1"), 100, 400).last, 100);
}

TEST(MaskTest, SparsityIsExactToOneElement) {
  const std::vector<PruneTarget> targets = {{"a", "a.w", 1, 0}, {"b", "b.w", 1, 0}};
  std::map<std::string, Tensor> scores = {{"a.w", absolute(noise({7, 11}, 1))},
                                          {"b.w", absolute(noise({5, 3, 3, 3}, 2))}};
  for (float& v : scores.at("b.w").mutable_data<float>()) v *= 0.01F;
  for (const double sparsity : {0.0, 0.1, 0.5, 0.77, 0.95}) {
    PruneOptions o = parse_prune("magnitude,scope=layer");
    Masks masks = lowest_masks(targets, scores, sparsity, o);
    EXPECT_EQ(zeros(masks.at("a.w")), std::llround(sparsity * 77));
    EXPECT_EQ(zeros(masks.at("b.w")), std::llround(sparsity * 135));
    o.scope = PruneScope::global;
    masks = lowest_masks(targets, scores, sparsity, o);
    EXPECT_EQ(zeros(masks.at("a.w")) + zeros(masks.at("b.w")), std::llround(sparsity * 212));
    // The layer of small weights goes first.
    if (sparsity <= 0.5) {
      EXPECT_EQ(zeros(masks.at("a.w")), 0);
    }
  }
}

TEST(MaskTest, TheSmallestGo) {
  const std::vector<PruneTarget> targets = {{"a", "a.w", 1, 0}};
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor scores = Tensor::from<float>({3, 1, nan, 1, 2, inf}, {1, 6});
  const Masks masks = lowest_masks(targets, {{"a.w", scores}}, 0.5, parse_prune("level"));
  EXPECT_EQ(values(masks.at("a.w")), (std::vector<float>{1, 0, 1, 0, 0, 1}));
  // Equal ones in their order.
  const Tensor equal = Tensor::from<float>({1, 1, 1, 1}, {1, 4});
  EXPECT_EQ(values(lowest_masks(targets, {{"a.w", equal}}, 0.5, parse_prune("level")).at("a.w")),
            (std::vector<float>{0, 0, 1, 1}));
}

TEST(MaskTest, PatternsRunAlongTheInputs) {
  // [outputs, inputs] and its transpose give the same groups.
  const Tensor rows = Tensor::from<float>({1, 4, 3, 2, 9, 8, 5, 6, 7, 0}, {1, 10});
  const PruneOptions nm = parse_prune("level,pattern=2:4");
  const std::vector<float> wanted = {0, 1, 1, 0, 1, 1, 0, 0, 1, 0};  // 2 left of the last two: 1
  EXPECT_EQ(values(lowest_masks({{"a", "w", 1, 0}}, {{"w", rows}}, 0.5, nm).at("w")), wanted);
  EXPECT_EQ(
      values(lowest_masks({{"a", "w", 0, 1}}, {{"w", rows.reshaped({10, 1})}}, 0.5, nm).at("w")),
      wanted);
  // Gradually: the groups that lose least first.
  const Tensor half = lowest_masks({{"a", "w", 1, 0}}, {{"w", rows}}, 0.25, nm).at("w");
  EXPECT_EQ(values(half), (std::vector<float>{0, 1, 1, 0, 1, 1, 1, 1, 1, 0}));
  const PruneOptions block = parse_prune("level,pattern=1x4");
  const Tensor blocks = lowest_masks({{"a", "w", 1, 0}}, {{"w", rows}}, 0.34, block).at("w");
  EXPECT_EQ(values(blocks), (std::vector<float>{0, 0, 0, 0, 1, 1, 1, 1, 1, 1}));
  // Of kernels the inputs are channels: one place of the kernel at a time.
  const Tensor kernel = absolute(noise({3, 8, 3, 3}, 5));
  const Tensor mask = lowest_masks({{"a", "w", 1, 0}}, {{"w", kernel}}, 0.5, nm).at("w");
  const auto m = mask.data<float>();
  for (size_t o = 0; o < 3; ++o) {
    for (size_t group = 0; group < 2; ++group) {
      for (size_t at = 0; at < 9; ++at) {
        float left = 0;
        for (size_t i = 0; i < 4; ++i) left += m[(o * 8 + group * 4 + i) * 9 + at];
        EXPECT_EQ(left, 2);
      }
    }
  }
}

TEST(MaskTest, ThresholdsCutAndBringBack) {
  const Tensor w = Tensor::from<float>({0.5F, -0.95F, 1.05F, -2}, {4});
  const Tensor first = threshold_mask(w, 1, 1, {});
  EXPECT_EQ(values(first), (std::vector<float>{0, 0, 1, 1}));
  const Tensor later = Tensor::from<float>({0.95F, 1.2F, 1.05F, 0.1F}, {4});
  EXPECT_EQ(values(threshold_mask(later, 0.9, 1.1, first)), (std::vector<float>{0, 1, 1, 0}));
  EXPECT_NEAR(deviation(Tensor::from<float>({1, -1, 3, -3}, {4})), std::sqrt(5), 1e-6);
  EXPECT_NEAR(splicing_threshold(Tensor::from<float>({1, -1, 3, -3}, {4}), 0.5), 2.5, 1e-6);
  const Tensor cut = masked(Tensor::from<float>({-1, 2}, {2}), Tensor::from<float>({0, 1}, {2}));
  EXPECT_EQ(cut.data<float>()[0], 0);
  EXPECT_FALSE(std::signbit(cut.data<float>()[0]));
}

TEST(TargetTest, AreLayersWithWeights) {
  Graph g = make_network("resnet20", 1);
  infer_shapes(g);
  EXPECT_EQ(find_targets(g, {}).size(), 22u);
  EXPECT_EQ(find_targets(g, {"stage1*", "fc"}, {"*conv2"}).size(), 4u);
  const std::string message = message_of([&] { find_targets(g, {"stage1.block1.conv3"}); });
  EXPECT_NE(message.find("did you mean 'stage1.block1.conv"), std::string::npos) << message;
  EXPECT_THROW(find_targets(g, {"fc"}, {"fc"}), Error);
}

TEST(TargetTest, ZerosAreCountedInFloatsAndCodes) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 4});
  Tensor w = noise({3, 4}, 3);
  w.mutable_data<float>()[2] = 0;
  w.mutable_data<float>()[7] = 0;
  const ValueId id = g.add_initializer("w", w);
  const NodeId fc = g.add_node("Gemm", {x, id}, {"y"}, {{"transB", int64_t{1}}}, "", "fc");
  g.add_output(g.node(fc).outputs[0]);
  infer_shapes(g);
  ASSERT_EQ(count_zeros(g).size(), 1u);
  EXPECT_EQ(count_zeros(g)[0].zeros, 2);
  EXPECT_EQ(count_zeros(g)[0].weights, 12);
  QdqPlan plan;
  Scheme scheme;
  const QuantParams params = minmax_params(w, scheme);
  plan.weights["w"] = {quantize(w, params), params};
  insert_qdq(g, plan);
  ASSERT_EQ(count_zeros(g).size(), 1u);
  EXPECT_GE(count_zeros(g)[0].zeros, 2);
  EXPECT_LE(count_zeros(g)[0].zeros, 4);  // a few more may round to it
}

TEST(AtOnceTest, FollowsTheMethod) {
  Graph g = make_network("mnist_cnn", 1);
  infer_shapes(g);
  const auto targets = find_targets(g, {});
  Masks masks = masks_at_once(g, targets, parse_prune("level,sparsity=0.9"));
  for (const auto& [name, mask] : masks) {
    EXPECT_EQ(zeros(mask), std::llround(0.9 * static_cast<double>(mask.elements()))) << name;
  }
  // Of a normal distribution 38.3 % lie within half a deviation.
  masks = masks_at_once(g, targets, parse_prune("sensitivity,k=0.5"));
  const Tensor& large = masks.at("fc1.weight");
  EXPECT_NEAR(static_cast<double>(zeros(large)) / static_cast<double>(large.elements()), 0.383,
              0.005);
  EXPECT_THROW(masks_at_once(g, targets, parse_prune("splicing")), Error);
}

}  // namespace
}  // namespace narrow::train
