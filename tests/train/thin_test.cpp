// SPDX-License-Identifier: Apache-2.0
// Filters that are removed: what is tied to what, and that the smaller graph computes what the
// masked one does.
#include "narrow/train/prune/thin.h"

#include <gtest/gtest.h>

#include <cmath>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"
#include "narrow/runtime/session.h"
#include "narrow/train/networks.h"
#include "train/train_testing.h"

namespace narrow::train {
namespace {

/// Everything at once: depthwise, concatenation with a second branch, a residual through it, an
/// activation that is not 0 at 0, pooling, a flattening by Reshape.
class Maze {
 public:
  Maze() {
    const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 3, 8, 8});
    const ValueId stem = relu(conv(x, "stem", 6, 3));
    const ValueId depth = add("Sigmoid", {conv(stem, "depth", 6, 3, 6)}, "sigmoid");
    const ValueId side = conv(stem, "side", 4, 1);
    const ValueId joined = add("Concat", {depth, side}, "joined", {{"axis", int64_t{1}}});
    const ValueId back = conv(joined, "back", 10, 3);
    const ValueId sum = relu(add("Add", {joined, back}, "sum"));
    using Ints = std::vector<int64_t>;
    const ValueId pooled =
        add("MaxPool", {sum}, "pool", {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
    const ValueId flat = add(
        "Reshape", {pooled, g.add_initializer("shape", Tensor::vector<int64_t>({0, 160}))}, "flat");
    const ValueId fc1 = relu(add("Gemm",
                                 {flat, g.add_initializer("fc1.w", noise({12, 160}, 8)),
                                  g.add_initializer("fc1.b", noise({12}, 9))},
                                 "fc1", {{"transB", int64_t{1}}}));
    g.add_output(add("MatMul", {fc1, g.add_initializer("fc2.w", noise({12, 5}, 10))}, "fc2"));
    infer_shapes(g);
  }

  ValueId add(const char* op, std::vector<ValueId> in, const std::string& name,
              Attributes attributes = {}) {
    return g.node(g.add_node(op, std::move(in), {name + ".y"}, std::move(attributes), "", name))
        .outputs[0];
  }
  ValueId relu(ValueId x) { return add("Relu", {x}, "relu" + std::to_string(++relus_)); }
  ValueId conv(ValueId x, const std::string& name, int64_t out, int64_t kernel, int64_t group = 1) {
    infer_shapes(g);
    const int64_t in = g.value(x).shape->at(1).value / group;
    const int64_t pad = kernel / 2;
    const uint64_t seed = std::hash<std::string>()(name);
    return add("Conv",
               {x, g.add_initializer(name + ".w", noise({out, in, kernel, kernel}, seed)),
                g.add_initializer(name + ".b", noise({out}, seed + 1))},
               name, {{"group", group}, {"pads", std::vector<int64_t>(4, pad)}});
  }
  Dims dims(const Graph& graph, const std::string& name) const {
    return graph.constant(*graph.find_value(name))->dims();
  }

  Graph g;

 private:
  int relus_ = 0;
};

double largest_difference(const Graph& a, const Graph& b, const Tensor& x) {
  const Tensor y = Session(a).run({x}).front();
  const Tensor z = Session(b).run({x}).front();
  EXPECT_EQ(y.dims(), z.dims());
  double most = 0;
  double size = 1e-30;
  for (size_t i = 0; i < y.data<float>().size(); ++i) {
    most = std::max(most, std::fabs(static_cast<double>(y.data<float>()[i]) - z.data<float>()[i]));
    size = std::max(size, std::fabs(static_cast<double>(y.data<float>()[i])));
  }
  return most / size;
}

TEST(ChannelsTest, AreTiedThroughTheGraph) {
  const Maze m;
  const Channels channels(m.g);
  const auto of = [&](const char* name, int64_t axis, int64_t i) {
    return channels.class_of(*m.g.find_value(name), axis, i);
  };
  EXPECT_NE(of("stem.w", 0, 2), Channels::kFixed);
  EXPECT_EQ(of("stem.w", 0, 2), of("depth.w", 0, 2));         // depthwise
  EXPECT_EQ(of("stem.w", 0, 2), of("back.w", 0, 2));          // through the residual
  EXPECT_EQ(of("side.w", 0, 1), of("back.w", 0, 7));          // behind the depthwise part
  EXPECT_EQ(of("side.w", 0, 1), of("fc1.w", 1, 7 * 16 + 3));  // a channel has 16 columns
  EXPECT_NE(of("side.w", 0, 1), of("side.w", 0, 2));
  EXPECT_EQ(of("stem.w", 1, 0), Channels::kFixed);  // the input
  EXPECT_EQ(of("fc2.w", 1, 0), Channels::kFixed);   // the output
  EXPECT_EQ(of("fc2.w", 0, 3), of("fc1.b", 0, 3));
  const auto groups = filter_groups(m.g, channels, {}, {});
  ASSERT_EQ(groups.size(), 3u);  // stem+depth+back, side+back, fc1
  EXPECT_EQ(groups[0].filters.size(), 6u);
  EXPECT_EQ(groups[0].nodes.size(), 3u);
  EXPECT_EQ(groups[1].filters.size(), 4u);
  EXPECT_EQ(groups[2].filters.size(), 12u);
  EXPECT_EQ(filter_groups(m.g, channels, {"fc1"}, {}).size(), 1u);
}

TEST(ThinTest, ComputesWhatTheMaskedGraphDoes) {
  const Maze m;
  const Channels channels(m.g);
  const auto groups = filter_groups(m.g, channels, {}, {});
  const FilterScores scores = score_filters(m.g, groups, RankMethod::l1, {});
  const ThinRecipe recipe = make_recipe(m.g, channels, lowest_filters(groups, scores, 0.5, 1));
  const Graph thin = thinned(m.g, recipe);
  EXPECT_EQ(m.dims(thin, "stem.w"), (Dims{3, 3, 3, 3}));
  EXPECT_EQ(m.dims(thin, "depth.w"), (Dims{3, 1, 3, 3}));
  EXPECT_EQ(thin.node(*thin.find_node("depth")).int_or("group", 1), 3);
  EXPECT_EQ(m.dims(thin, "side.w"), (Dims{2, 3, 1, 1}));
  EXPECT_EQ(m.dims(thin, "back.w"), (Dims{5, 5, 3, 3}));
  EXPECT_EQ(m.dims(thin, "fc1.w"), (Dims{6, 80}));
  EXPECT_EQ(m.dims(thin, "fc2.w"), (Dims{6, 5}));
  const Tensor x = noise({2, 3, 8, 8}, 3);
  EXPECT_LE(largest_difference(masked(m.g, recipe), thin, x), 1e-6);
  EXPECT_GT(largest_difference(m.g, thin, x), 1e-3);
}

/// Two blocks of branches: 1x1, 3x3 behind a 1x1, a pool with a projection, and the block's input
/// itself, with a batch norm over all of them.
TEST(ThinTest, BranchesThatMeetBecomeThinnerOneByOne) {
  Maze m;
  Graph& g = m.g;
  g = Graph();
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 3, 8, 8});
  const auto block = [&](ValueId in, const std::string& name, int64_t channels) {
    const ValueId one = m.relu(m.conv(in, name + ".one", 4, 1));
    const ValueId three = m.conv(m.relu(m.conv(in, name + ".reduce", 6, 1)), name + ".three", 8, 3);
    using Ints = std::vector<int64_t>;
    const ValueId pool = m.add("MaxPool", {in}, name + ".pool",
                               {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}});
    const ValueId project = m.conv(pool, name + ".project", 4, 1);
    const ValueId all =
        m.add("Concat", {one, three, project, in}, name + ".cat", {{"axis", int64_t{1}}});
    const auto vector = [&](const char* part, float value) {
      Tensor t = noise({channels}, 77);
      for (float& v : t.mutable_data<float>()) v = value + 0.1F * std::fabs(v);
      return g.add_initializer(name + part, t);
    };
    return m.relu(m.add(
        "BatchNormalization",
        {all, vector(".gain", 1), vector(".shift", 0), vector(".mean", 0), vector(".variance", 1)},
        name + ".norm"));
  };
  const ValueId stem = m.relu(m.conv(x, "stem", 8, 3));
  const ValueId second = block(block(stem, "a", 24), "b", 40);
  const ValueId mean = m.add("GlobalAveragePool", {second}, "mean");
  const ValueId flat = m.add("Flatten", {mean}, "flat");
  g.add_output(m.add("Gemm", {flat, g.add_initializer("fc.w", noise({5, 40}, 8))}, "fc",
                     {{"transB", int64_t{1}}}));
  infer_shapes(g);
  const Channels channels(g);
  // Filters of each branch by themselves; the stem's go on into both blocks.
  EXPECT_EQ(channels.class_of(*g.find_value("a.three.w"), 0, 3),
            channels.class_of(*g.find_value("b.mean"), 0, 16 + 4 + 3));
  EXPECT_EQ(channels.class_of(*g.find_value("stem.w"), 0, 2),
            channels.class_of(*g.find_value("fc.w"), 1, 16 + 16 + 2));
  const auto groups = filter_groups(g, channels, {}, {});
  EXPECT_EQ(groups.size(), 9u);
  const FilterScores scores = score_filters(g, groups, RankMethod::l1, {});
  const ThinRecipe recipe = make_recipe(g, channels, lowest_filters(groups, scores, 0.5, 1));
  const Graph thin = thinned(g, recipe);
  EXPECT_EQ(m.dims(thin, "a.three.w"), (Dims{4, 3, 3, 3}));
  EXPECT_EQ(m.dims(thin, "b.one.w"), (Dims{2, 12, 1, 1}));
  EXPECT_EQ(m.dims(thin, "b.variance"), (Dims{20}));
  EXPECT_EQ(m.dims(thin, "fc.w"), (Dims{5, 20}));
  const Tensor images = noise({2, 3, 8, 8}, 3);
  EXPECT_LE(largest_difference(masked(g, recipe), thin, images), 1e-6);
  EXPECT_GT(largest_difference(g, thin, images), 1e-3);
}

TEST(ThinTest, ResidualNetworksBecomeThinner) {
  Graph g = make_network("resnet20", 3);
  infer_shapes(g);
  const Channels channels(g);
  const auto groups = filter_groups(g, channels, {}, {});
  EXPECT_EQ(groups.size(), 12u);  // the three stages, the first convolution of each block
  const FilterScores scores = score_filters(g, groups, RankMethod::l1, {});
  const ThinRecipe recipe = make_recipe(g, channels, lowest_filters(groups, scores, 0.5, 8));
  const Graph thin = thinned(g, recipe);
  const Tensor x = noise({1, 1, 28, 28}, 4);
  EXPECT_LE(largest_difference(masked(g, recipe), thin, x), 1e-6);
  const auto macs = [&](const Graph& graph) {
    return Session(graph).count_macs({{1, 1, 28, 28}}).total;
  };
  EXPECT_LT(macs(thin), 0.3 * static_cast<double>(macs(g)));
}

TEST(ThinTest, ScoresFollowTheMethod) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 2});
  const ValueId w1 = g.add_initializer("w1", Tensor::from<float>({1, -3, 2, 1, 0, 0.5F}, {3, 2}));
  const NodeId a = g.add_node("Gemm", {x, w1}, {"h"}, {{"transB", int64_t{1}}}, "", "a");
  const ValueId w2 = g.add_initializer("w2", noise({3, 2}, 1));
  g.add_output(
      g.node(g.add_node("MatMul", {g.node(a).outputs[0], w2}, {"y"}, {}, "", "b")).outputs[0]);
  infer_shapes(g);
  const Channels channels(g);
  const auto groups = filter_groups(g, channels, {}, {});
  ASSERT_EQ(groups.size(), 1u);
  const std::map<std::string, Tensor> gradients = {
      {"w1", Tensor::from<float>({3, 1, 1, 1, 2, -7}, {3, 2})}};
  const auto score = [&](RankMethod method, size_t i) {
    return score_filters(g, groups, method, gradients).at(groups[0].filters[i].channel_class);
  };
  EXPECT_EQ(score(RankMethod::l1, 0), 4);
  EXPECT_EQ(score(RankMethod::gradient, 2), 9);
  EXPECT_EQ(score(RankMethod::taylor, 0), 0);  // 1 * 3 - 3 * 1
  EXPECT_EQ(score(RankMethod::taylor, 2), 3.5);
  const auto removed =
      lowest_filters(groups, score_filters(g, groups, RankMethod::l1, {}), 0.99, 8);
  EXPECT_EQ(removed.size(), 2u);  // one stays
  EXPECT_FALSE(removed.contains(groups[0].filters[0].channel_class));
}

TEST(ThinTest, RecipesOfOtherGraphsAreRefused) {
  const Maze m;
  ThinRecipe recipe;
  recipe.cuts = {{"none", 0, {0}}};
  EXPECT_THROW(thinned(m.g, recipe), Error);
  recipe.cuts = {{"stem.w", 0, {99}}};
  EXPECT_THROW(thinned(m.g, recipe), Error);
  recipe.cuts.clear();
  recipe.conv_groups["none"] = 2;
  EXPECT_THROW(thinned(m.g, recipe), Error);
}

TEST(ThinOptionsTest, AreReadAsTheyArePrinted) {
  for (const char* text : {"l1,macs=0.5,align=8,samples=1000",
                           "taylor,ratio=0.25,align=1,samples=50,layers=a*,except=ab"}) {
    EXPECT_EQ(to_text(parse_thin(text)), text);
  }
  for (const char* text : {"taylor,heads=0.25,kv_heads=0.5,ff=0.5,blocks=2,align=32,samples=64",
                           "l1,blocks=1,align=8,samples=5"}) {
    EXPECT_EQ(to_text(parse_thin(text)), text);
  }
  for (const char* text : {"l1,ff=0.5,ratio=0.5", "apoz,ff=0.5", "l1,ff=0.5,layers=a", "l1,ff=1",
                           "l1,blocks=0", "l1,heads=0"}) {
    EXPECT_THROW(parse_thin(text), Error) << text;
  }
  EXPECT_THROW(parse_thin("l1"), Error);
  EXPECT_THROW(parse_thin("l1,ratio=0.5,macs=0.5"), Error);
  EXPECT_THROW(parse_thin("l3,ratio=0.5"), Error);
  EXPECT_THROW(parse_thin("l1,ratios=0.5"), Error);
}

}  // namespace
}  // namespace narrow::train
