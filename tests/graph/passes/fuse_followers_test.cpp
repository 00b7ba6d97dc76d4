// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

/// Integer operators with the grids that they want.
struct IntegerNet : Net {
  ValueId scale(float s) { return scalar(s); }
  ValueId zero() {
    return constant(Tensor::from_ints(std::array<int64_t, 1>{7}, DType::uint8, {}));
  }
  ValueId image(int64_t channels, int64_t size = 6) {
    return input(SymbolicShape{Dim::symbol("N"), channels, size, size}, DType::uint8);
  }
  ValueId conv(ValueId x, int64_t channels, int64_t groups = 1) {
    const ValueId w = zeros({channels, channels / groups, 1, 1}, DType::int8);
    return op(ops::kQConv, {x, scale(0.1f), zero(), w, scale(0.2f), kNoId, scale(0.3f), zero()},
              {{"qmin", int64_t{7}}, {"group", groups}}, ops::kDomain);
  }
  ValueId add(ValueId a, ValueId b, const char* what = "Add") {
    return op(ops::kQBinary, {a, scale(0.3f), zero(), b, scale(0.4f), zero(), scale(0.5f), zero()},
              {{"op", std::string(what)}, {"qmax", int64_t{200}}}, ops::kDomain);
  }
  void finish(ValueId y) {
    output(op("DequantizeLinear", {y, scale(0.5f), zero()}));
    infer();
  }
  float value_at(const Node& node, size_t input) const {
    return g.constant(node.inputs[input])->data<float>()[0];
  }
};

const Node* fused(const Net& n) {
  const Node* node = n.g.producer(n.g.producer(n.g.outputs()[0])->inputs[0]);
  return node->is(ops::kQConvAdd, ops::kDomain) ? node : nullptr;
}

TEST(FuseFollowers, SumsTakeTheGridsOfBothNodes) {
  for (const bool second : {false, true}) {
    IntegerNet n;
    const ValueId x = n.image(4);
    const ValueId y = n.conv(x, 4);
    n.finish(second ? n.add(x, y) : n.add(y, x));
    EXPECT_EQ(fuse_followers(n.g, {}), 1);
    n.infer();
    verify(n.g);
    const Node* node = fused(n);
    ASSERT_NE(node, nullptr);
    ASSERT_EQ(node->inputs.size(), 16U);
    EXPECT_EQ(node->inputs[0], x);
    EXPECT_EQ(node->inputs[9], x);
    EXPECT_EQ(n.value_at(*node, 6), 0.3f);
    EXPECT_EQ(n.value_at(*node, 10), second ? 0.3f : 0.4f);
    EXPECT_EQ(n.value_at(*node, 12), second ? 0.4f : 0.3f);
    EXPECT_EQ(n.value_at(*node, 14), 0.5f);
    EXPECT_EQ(node->int_or("qmin", 0), 7);
    EXPECT_EQ(node->int_or("sum_qmin", 0), 0);
    EXPECT_EQ(node->int_or("sum_qmax", 0), 200);
    EXPECT_EQ(n.dtype(node->outputs[0]), DType::uint8);
    EXPECT_EQ(n.shape(node->outputs[0]), "[N, 4, 6, 6]");
    EXPECT_EQ(n.g.num_nodes(), 2U);
  }
}

TEST(FuseFollowers, OfTwoConvolutionsTheLaterOne) {
  IntegerNet n;
  const ValueId x = n.image(4);
  const ValueId early = n.conv(x, 4);
  const ValueId late = n.conv(n.conv(x, 4), 4);
  n.finish(n.add(early, late));
  EXPECT_EQ(fuse_followers(n.g, {}), 1);
  verify(n.g);
  ASSERT_NE(fused(n), nullptr);
  EXPECT_EQ(fused(n)->inputs[9], early);
}

TEST(FuseFollowers, TablesOfTheSameType) {
  for (const bool same : {true, false}) {
    IntegerNet n;
    const ValueId table = n.zeros({256}, same ? DType::uint8 : DType::int8);
    n.output(n.op("Relu", {n.op(ops::kQLookup, {n.conv(n.image(4), 4), table}, {}, ops::kDomain)}));
    n.infer();
    EXPECT_EQ(fuse_followers(n.g, {}), same ? 1 : 0);
    if (!same) continue;
    n.infer();
    verify(n.g);
    const Node* node = n.g.producer(n.g.producer(n.g.outputs()[0])->inputs[0]);
    ASSERT_TRUE(node->is(ops::kQConvLookup, ops::kDomain));
    EXPECT_EQ(node->inputs.size(), 10U);
    EXPECT_EQ(node->inputs[9], table);
    EXPECT_EQ(n.shape(node->outputs[0]), "[N, 4, 6, 6]");
  }
}

TEST(FuseFollowers, OthersStay) {
  const auto changes = [](auto build) {
    IntegerNet n;
    n.finish(build(n));
    return fuse_followers(n.g, {});
  };
  EXPECT_EQ(changes([](IntegerNet& n) {
              const ValueId x = n.image(4);
              return n.add(n.conv(x, 4), x, "Sub");
            }),
            0);
  EXPECT_EQ(changes([](IntegerNet& n) {  // read twice
              const ValueId y = n.conv(n.image(4), 4);
              return n.add(y, y);
            }),
            0);
  EXPECT_EQ(changes([](IntegerNet& n) {
              const ValueId x = n.image(4);
              return n.add(n.conv(x, 4, 4), x);  // depthwise
            }),
            0);
  EXPECT_EQ(changes([](IntegerNet& n) {  // broadcast
              return n.add(n.conv(n.image(4), 4), n.image(4, 1));
            }),
            0);
  EXPECT_EQ(changes([](IntegerNet& n) {
              const ValueId x = n.image(16, 70);  // more codes than are worth it
              return n.add(n.conv(x, 16), x);
            }),
            0);
}

}  // namespace
}  // namespace narrow
