// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

/// MatMul(x, w [4, 3]) + bias.
Net product(SymbolicShape x, Tensor bias, bool bias_first = false) {
  Net n;
  const ValueId y = n.op("MatMul", {n.input(std::move(x)), n.zeros({4, 3})});
  const ValueId b = n.constant(std::move(bias));
  const ValueId sum = bias_first ? n.op("Add", {b, y}) : n.op("Add", {y, b});
  n.output(sum);
  n.infer();
  return n;
}

TEST(FuseMatmulBias, BecomesGemm) {
  for (const bool bias_first : {false, true}) {
    for (const Dims& dims : {Dims{3}, Dims{1, 3}}) {
      Net n = product({Dim::symbol("N"), 4}, Tensor::from<float>({1, 2, 3}, dims), bias_first);
      const std::string name = n.g.value(n.g.outputs()[0]).name;
      EXPECT_EQ(fuse_matmul_bias(n.g, {}), 1);
      ASSERT_EQ(n.g.num_nodes(), 1u);
      const Node& gemm = n.g.node(n.g.nodes()[0]);
      EXPECT_TRUE(gemm.is("Gemm"));
      EXPECT_EQ(n.g.constant(gemm.inputs[2])->to_floats(), (std::vector<float>{1, 2, 3}));
      EXPECT_EQ(n.g.constant(gemm.inputs[2])->rank(), 1u);
      EXPECT_EQ(n.g.value(gemm.outputs[0]).name, name);
      n.infer();
      verify(n.g);
    }
  }
}

TEST(FuseMatmulBias, OtherProductsStay) {
  Net rank = product({Dim::symbol("N"), 2, 4}, Tensor(DType::float32, {3}));
  EXPECT_EQ(fuse_matmul_bias(rank.g, {}), 0);
  Net scalar = product({2, 4}, Tensor(DType::float32, {1}));
  EXPECT_EQ(fuse_matmul_bias(scalar.g, {}), 0);
  Net column = product({3, 4}, Tensor(DType::float32, {3, 1}));
  EXPECT_EQ(fuse_matmul_bias(column.g, {}), 0);
  Net grows = product({1, 4}, Tensor(DType::float32, {1, 1, 3}));
  EXPECT_EQ(fuse_matmul_bias(grows.g, {}), 0);
  Net twice = product({2, 4}, Tensor(DType::float32, {3}));
  twice.output(twice.g.node(twice.g.nodes()[0]).outputs[0]);
  EXPECT_EQ(fuse_matmul_bias(twice.g, {}), 0);
}

}  // namespace
}  // namespace narrow
