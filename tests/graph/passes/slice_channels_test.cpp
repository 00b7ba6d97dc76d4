// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

std::vector<int64_t> constant(const Net& n, const Node& node, size_t input) {
  return n.g.constant(node.inputs[input])->to_ints();
}

/// The shuffle of ShuffleNet's units [1, 12, 4, 5]: even and odd channels.
ValueId shuffled(Net& n, ValueId x) {
  const ValueId pairs = n.op("Reshape", {x, n.ints({6, 2, 20})});
  const ValueId turned = n.op("Transpose", {pairs}, {{"perm", Ints{1, 0, 2}}});
  return n.op("Reshape", {turned, n.ints({2, -1, 6, 4, 5})});
}

TEST(SliceChannels, ShufflesOfPairsAreSlices) {
  Net n;
  const ValueId x = n.input(SymbolicShape{1, 12, 4, 5});
  const ValueId both = shuffled(n, x);
  n.output(n.op("Relu", {n.op("Gather", {both, n.scalar(int64_t{0})})}));
  n.output(n.op("Relu", {n.op("Gather", {both, n.scalar(int64_t{-1})})}));
  n.infer();
  EXPECT_EQ(slice_channels(n.g, {}), 2);
  n.infer();
  verify(n.g);
  ASSERT_EQ(n.g.num_nodes(), 4U);
  for (size_t i = 0; i < 2; ++i) {
    const Node* slice = n.g.producer(n.g.producer(n.g.outputs()[i])->inputs[0]);
    ASSERT_TRUE(slice->is("Slice"));
    EXPECT_EQ(slice->inputs[0], x);
    EXPECT_EQ(n.shape(slice->outputs[0]), "[1, 6, 4, 5]");
    const auto first = static_cast<int64_t>(i);
    EXPECT_EQ(constant(n, *slice, 1), Ints{first});
    EXPECT_EQ(constant(n, *slice, 2), Ints{first + 11});
    EXPECT_EQ(constant(n, *slice, 3), Ints{1});
    EXPECT_EQ(constant(n, *slice, 4), Ints{2});
  }
}

TEST(SliceChannels, ImagesOfABatchKeepTheirOwnChannels) {
  Net n;
  const ValueId x = n.input(SymbolicShape{3, 8, 2, 2});
  const ValueId pairs = n.op("Reshape", {x, n.ints({3, 4, 2, 2, 2})});
  const ValueId turned = n.op("Transpose", {pairs}, {{"perm", Ints{2, 0, 1, 3, 4}}});
  n.output(n.op("Relu", {n.op("Gather", {turned, n.scalar(int64_t{1})})}));
  // The images of a batch as channels of one another.
  const ValueId mixed = n.op("Reshape", {x, n.ints({2, 12, 2, 2})});
  const ValueId other = n.op("Transpose", {mixed}, {{"perm", Ints{1, 0, 2, 3}}});
  const ValueId groups = n.op("Reshape", {other, n.ints({3, 8, 2, 2})});
  n.output(n.op("Relu", {groups}));
  n.infer();
  EXPECT_EQ(slice_channels(n.g, {}), 1);
  verify(n.g);
  const Node* slice = n.g.producer(n.g.producer(n.g.outputs()[0])->inputs[0]);
  ASSERT_TRUE(slice->is("Slice"));
  EXPECT_EQ(constant(n, *slice, 1), Ints{1});
  EXPECT_EQ(constant(n, *slice, 4), Ints{2});
  EXPECT_TRUE(n.g.producer(n.g.producer(n.g.outputs()[1])->inputs[0])->is("Reshape"));
}

TEST(SliceChannels, OtherOrdersStay) {
  const auto changes = [](const Ints& split, const Ints& perm, const Ints& back) {
    Net n;
    const ValueId x = n.input(SymbolicShape{1, 12, 4, 4});
    const ValueId parts = n.op("Reshape", {x, n.ints(split)});
    const ValueId turned = n.op("Transpose", {parts}, {{"perm", perm}});
    n.output(n.op("Relu", {n.op("Reshape", {turned, n.ints(back)})}));
    n.infer();
    const int64_t count = slice_channels(n.g, {});
    verify(n.g);
    return count;
  };
  // Every channel, in an order that is no slice.
  EXPECT_EQ(changes({1, 2, 6, 4, 4}, {0, 2, 1, 3, 4}, {1, 12, 4, 4}), 0);
  // Rows and columns changed places.
  EXPECT_EQ(changes({12, 4, 4}, {0, 2, 1}, {1, 12, 4, 4}), 0);
  // Pixels that went into channels.
  EXPECT_EQ(changes({12, 16}, {1, 0}, {1, 12, 4, 4}), 0);
}

TEST(SliceChannels, OutputsAndUnknownShapesStay) {
  Net n;
  n.output(
      n.op("Gather", {shuffled(n, n.input(SymbolicShape{1, 12, 4, 5})), n.scalar(int64_t{0})}));
  const ValueId x = n.input(SymbolicShape{Dim::symbol("N"), 12, 4, 5});
  const ValueId pairs = n.op("Reshape", {x, n.ints({-1, 6, 2, 4, 5})});
  const ValueId turned = n.op("Transpose", {pairs}, {{"perm", Ints{2, 0, 1, 3, 4}}});
  n.output(n.op("Relu", {n.op("Gather", {turned, n.scalar(int64_t{0})})}));
  n.infer();
  EXPECT_EQ(slice_channels(n.g, {}), 0);
}

}  // namespace
}  // namespace narrow
