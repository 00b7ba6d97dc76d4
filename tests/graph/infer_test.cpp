// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "narrow/graph/op_table.h"

namespace narrow {
namespace {

TEST(InferShapes, CarriesSymbolsThroughANetwork) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 3, 8, 8});
  const ValueId w = g.add_initializer("w", Tensor(DType::float32, {4, 3, 3, 3}));
  const NodeId conv = g.add_node(
      "Conv", {x, w}, {"c"},
      {{"pads", std::vector<int64_t>{1, 1, 1, 1}}, {"strides", std::vector<int64_t>{2, 2}}});
  const NodeId flat = g.add_node("Flatten", {g.node(conv).outputs[0]}, {"f"});
  g.add_output(g.node(flat).outputs[0]);
  infer_shapes(g);
  EXPECT_EQ(to_string(*g.value(g.node(conv).outputs[0]).shape), "[N, 4, 4, 4]");
  EXPECT_EQ(to_string(*g.value(g.node(flat).outputs[0]).shape), "[N, 64]");
  verify(g);
}

}  // namespace
}  // namespace narrow
