// SPDX-License-Identifier: Apache-2.0
// Casts that an operator behind them takes in, and those that it must not.
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

constexpr int64_t kToFloat = 1;

ValueId wide(Net& n, ValueId x) {
  return n.op("Cast", {x}, {{"to", kToFloat}});
}

/// The operator that makes the output after the pass, with transB: "narrow.HalfGemm 1".
std::string after(Net& n, ValueId y) {
  n.output(y);
  n.infer();
  absorb_casts(n.g, {});
  n.infer();
  verify(n.g);
  const Node& node = *n.g.producer(n.g.outputs()[0]);
  return (node.domain.empty() ? "" : node.domain + ".") + node.op +
         (node.has("transB") ? " " + std::to_string(node.int_or("transB", 0)) : "");
}

TEST(AbsorbCasts, Matrices) {
  for (const DType dtype : {DType::float16, DType::bfloat16}) {
    Net n;
    EXPECT_EQ(after(n, n.op("MatMul",
                            {n.input(SymbolicShape{2, 3, 8}), wide(n, n.zeros({8, 5}, dtype))})),
              "narrow.HalfGemm 0");
    EXPECT_EQ(n.shape(n.g.outputs()[0]), "[2, 3, 5]");
    EXPECT_EQ(n.g.num_nodes(), 1u);
  }
  Net outside;
  EXPECT_EQ(after(outside,
                  outside.op("MatMul",
                             {outside.input(SymbolicShape{3, 8}),
                              outside.op("Transpose",
                                         {wide(outside, outside.zeros({5, 8}, DType::float16))})})),
            "narrow.HalfGemm 1");
  Net inside;
  EXPECT_EQ(
      after(inside, inside.op("MatMul",
                              {inside.input(SymbolicShape{3, 8}),
                               wide(inside, inside.op("Transpose",
                                                      {inside.zeros({5, 8}, DType::bfloat16)}))})),
      "narrow.HalfGemm 1");
  Net gemm;
  EXPECT_EQ(after(gemm, gemm.op("Gemm",
                                {gemm.input(SymbolicShape{3, 8}),
                                 wide(gemm, gemm.zeros({5, 8}, DType::bfloat16)),
                                 gemm.floats({1, 2, 3, 4, 5})},
                                {{"transB", int64_t{1}}})),
            "narrow.HalfGemm 1");
  EXPECT_EQ(gemm.g.node(gemm.g.nodes()[0]).inputs.size(), 3u);
}

TEST(AbsorbCasts, WhatStays) {
  Net single;
  EXPECT_EQ(
      after(single, single.op("MatMul", {single.input(SymbolicShape{3, 8}), single.zeros({8, 5})})),
      "MatMul");
  Net run_time;
  EXPECT_EQ(
      after(run_time, run_time.op("MatMul", {run_time.input(SymbolicShape{3, 8}),
                                             wide(run_time, run_time.input(SymbolicShape{8, 5},
                                                                           DType::float16))})),
      "MatMul");
  Net scaled;
  EXPECT_EQ(after(scaled, scaled.op("Gemm",
                                    {scaled.input(SymbolicShape{3, 8}),
                                     wide(scaled, scaled.zeros({8, 5}, DType::float16))},
                                    {{"alpha", 2.0F}})),
            "Gemm");
  Net batched;
  EXPECT_EQ(after(batched,
                  batched.op("MatMul", {batched.input(SymbolicShape{2, 3, 8}),
                                        wide(batched, batched.zeros({2, 8, 5}, DType::float16))})),
            "MatMul");
}

TEST(AbsorbCasts, Embedding) {
  Net n;
  const ValueId found = n.op("Gather", {wide(n, n.zeros({9, 8}, DType::bfloat16)),
                                        n.input(SymbolicShape{2, 3}, DType::int64)});
  EXPECT_EQ(after(n, n.op("Neg", {found})), "Neg");
  ASSERT_EQ(n.g.num_nodes(), 3u);
  EXPECT_EQ(n.g.value(n.g.node(n.g.nodes()[0]).outputs[0]).dtype, DType::bfloat16);
  EXPECT_EQ(n.g.value(n.g.node(n.g.nodes()[1]).outputs[0]).dtype, DType::float32);
  Net output;
  EXPECT_EQ(after(output, output.op("Gather", {wide(output, output.zeros({9, 8}, DType::bfloat16)),
                                               output.input(SymbolicShape{2}, DType::int64)})),
            "Gather");
}

}  // namespace
}  // namespace narrow
