// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

TEST(EliminateCommon, EqualNodesBecomeOneChainsIncluded) {
  Net n;
  const ValueId x = n.input(SymbolicShape{2, 6});
  const auto branch = [&](int64_t columns) {
    const ValueId shaped = n.op("Reshape", {x, n.ints({-1, columns})});
    return n.op("Softmax", {shaped}, {{"axis", int64_t{1}}});
  };
  const ValueId sum = n.op("Add", {branch(3), branch(3)});
  n.output(n.op("Add", {sum, branch(3)}));
  n.output(branch(4));
  n.infer();
  EXPECT_EQ(eliminate_common(n.g, {}), 4);  // two Reshapes and two Softmaxes
  n.g.remove_dead();
  n.infer();
  verify(n.g);
  EXPECT_EQ(n.g.num_nodes(), 6u);
}

TEST(EliminateCommon, AttributesAndInputsTellNodesApart) {
  Net n;
  const ValueId x = n.input(SymbolicShape{2, 6});
  const ValueId z = n.input(SymbolicShape{2, 6});
  for (const int64_t axis : {0, 1}) n.output(n.op("Softmax", {x}, {{"axis", axis}}));
  n.output(n.op("Softmax", {z}, {{"axis", int64_t{1}}}));
  n.output(n.op("LogSoftmax", {x}, {{"axis", int64_t{1}}}));
  n.output(n.op("Sub", {x, z}));
  n.output(n.op("Sub", {z, x}));
  n.output(n.op("ConstantOfShape", {n.ints({2})}, {{"value", Tensor::vector<int64_t>({1})}}));
  n.output(n.op("ConstantOfShape", {n.ints({2})}, {{"value", Tensor::vector<int64_t>({2})}}));
  n.infer();
  EXPECT_EQ(eliminate_common(n.g, {}), 0);
}

TEST(EliminateCommon, TwoOutputsOfTheGraphStayTwo) {
  Net n;
  const ValueId x = n.input(SymbolicShape{2});
  n.output(n.op("Sin", {x}));
  n.output(n.op("Sin", {x}));
  n.infer();
  EXPECT_EQ(eliminate_common(n.g, {}), 0);
}

TEST(EliminateCommon, AnOutputTakesItsNameAlong) {
  Net n;
  const ValueId x = n.input(SymbolicShape{2});
  const ValueId inner = n.op("Sin", {x});
  n.output(n.op("Cos", {inner}));
  const ValueId y = n.op("Sin", {x});
  n.output(y);
  n.infer();
  const std::string name = n.g.value(y).name;
  EXPECT_EQ(eliminate_common(n.g, {}), 1);
  EXPECT_EQ(n.g.value(n.g.outputs()[1]).name, name);
  EXPECT_EQ(n.g.outputs()[1], inner);
  verify(n.g);
}

TEST(EliminateCommon, GridsAndFloatConstantsAreNotShared) {
  Net n;
  const ValueId x = n.input(SymbolicShape{2});
  const ValueId scale = n.scalar(0.5f);
  for (int i = 0; i < 2; ++i) {
    const ValueId q = n.op("QuantizeLinear", {x, scale, n.scalar(uint8_t{0})});
    n.output(n.op("DequantizeLinear", {q, scale, n.scalar(uint8_t{0})}));
    n.output(n.op("Add", {x, n.zeros({2})}));
  }
  n.infer();
  EXPECT_EQ(eliminate_common(n.g, {}), 0);
}

}  // namespace
}  // namespace narrow
