// SPDX-License-Identifier: Apache-2.0
#include "skeleton_pass.h"

#include <gtest/gtest.h>

#include "narrow/graph/op_table.h"

namespace narrow {
namespace {

/// x -> Relu -> Clip(min, 6) -> y
Graph relu_then_clip(float min) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 4});
  const NodeId relu = g.add_node("Relu", {x}, {"h"});
  const ValueId lo = g.add_initializer("lo", Tensor::scalar(min));
  const ValueId hi = g.add_initializer("hi", Tensor::scalar(6.0f));
  const NodeId clip = g.add_node("Clip", {g.node(relu).outputs[0], lo, hi}, {"y"});
  g.add_output(g.node(clip).outputs[0]);
  infer_shapes(g);
  return g;
}

TEST(MergeReluIntoClip, OneClipRemains) {
  for (const float min : {-1.0f, 2.0f}) {
    Graph g = relu_then_clip(min);
    EXPECT_EQ(merge_relu_into_clip(g, {}), 1);
    ASSERT_EQ(g.num_nodes(), 1u);
    const Node& clip = g.node(g.nodes()[0]);
    EXPECT_EQ(g.value(clip.inputs[0]).name, "x");
    EXPECT_EQ(g.constant(clip.inputs[1])->item<float>(), std::max(min, 0.0f));
    EXPECT_EQ(g.value(g.outputs()[0]).name, "y");
    infer_shapes(g);
    verify(g);
  }
}

TEST(MergeReluIntoClip, AReluThatIsUsedElsewhereStays) {
  Graph g = relu_then_clip(0);
  g.add_output(*g.find_value("h"));
  EXPECT_EQ(merge_relu_into_clip(g, {}), 1);
  EXPECT_EQ(g.num_nodes(), 2u);
  verify(g);
}

TEST(MergeReluIntoClip, OtherActivationsStay) {
  Graph g = relu_then_clip(0);
  g.set_op(g.nodes()[0], "Tanh");
  EXPECT_EQ(merge_relu_into_clip(g, {}), 0);
  EXPECT_EQ(g.num_nodes(), 2u);
}

TEST(MergeReluIntoClip, LimitsThatAreComputedStay) {
  Graph g = relu_then_clip(0);
  const ValueId computed = g.add_input("limit", DType::float32, SymbolicShape{});
  g.set_input(g.nodes()[1], 1, computed);
  EXPECT_EQ(merge_relu_into_clip(g, {}), 0);
}

}  // namespace
}  // namespace narrow
