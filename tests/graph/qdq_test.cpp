// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/qdq.h"

#include <gtest/gtest.h>

#include "narrow/core/error.h"
#include "narrow/graph/lowered_ops.h"

namespace narrow {
namespace {

QuantParams grid(float scale, int32_t zero_point, bool is_signed = false) {
  QuantParams p;
  p.scheme.is_signed = is_signed;
  p.scheme.symmetry = Symmetry::asymmetric;
  p.scale = Tensor::scalar(scale);
  p.zero_point = Tensor::scalar(zero_point);
  return p;
}

QuantizedTensor codes(DType dtype, const std::vector<int64_t>& values, Dims dims, float scale) {
  QuantizedTensor q;
  q.codes = Tensor::from_ints(values, dtype, std::move(dims));
  q.params.scheme.bits = bits(dtype);
  q.params.scale = Tensor::scalar(scale);
  return q;
}

/// x [N,2] -> Gemm(w [2,2], b) -> Relu -> y
Graph small_net() {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 2});
  const ValueId w = g.add_initializer("w", Tensor::from<float>({1, 2, 3, 4}, {2, 2}));
  const ValueId b = g.add_initializer("b", Tensor::from<float>({0.5f, -1}, {2}));
  const NodeId gemm = g.add_node("Gemm", {x, w, b}, {"h"}, {}, "", "fc");
  const NodeId relu = g.add_node("Relu", {g.node(gemm).outputs[0]}, {"y"});
  g.add_output(g.node(relu).outputs[0]);
  return g;
}

QdqPlan small_plan() {
  QdqPlan plan;
  plan.activations["x"] = grid(0.5f, 128);
  plan.activations["y"] = grid(0.25f, 0);
  plan.weights["w"] = codes(DType::int8, {1, 2, 3, 4}, {2, 2}, 1.0f);
  plan.biases["b"] = codes(DType::int32, {1, -2}, {2}, 0.5f);
  return plan;
}

size_t count(const Graph& g, std::string_view op, std::string_view domain = "") {
  size_t n = 0;
  for (const NodeId id : g.nodes()) n += g.node(id).is(op, domain) ? 1 : 0;
  return n;
}

TEST(InsertQdq, WrapsActivationsWeightsAndBiases) {
  Graph g = small_net();
  EXPECT_EQ(insert_qdq(g, small_plan()), 4);
  EXPECT_EQ(count(g, "QuantizeLinear"), 2u);
  EXPECT_EQ(count(g, "DequantizeLinear"), 4u);
  EXPECT_EQ(g.value(g.outputs()[0]).name, "y");  // the output keeps its name, dequantized
  EXPECT_TRUE(g.producer(g.outputs()[0])->is("DequantizeLinear"));
  EXPECT_FALSE(g.find_value("w").has_value());  // the float weights are gone
}

TEST(InsertQdq, UnknownNamesAreRefused) {
  Graph g = small_net();
  QdqPlan plan;
  plan.activations["nothing"] = grid(1, 0);
  EXPECT_THROW(insert_qdq(g, plan), Error);
}

TEST(InsertQdq, WidthsBelowTheStorageTypeAreClips) {
  Graph g = small_net();
  QdqPlan plan;
  plan.activations["x"] = grid(0.5f, 8);
  plan.activations["x"].scheme.bits = 5;
  insert_qdq(g, plan);
  EXPECT_EQ(count(g, "Clip"), 1u);
  const Node* clip = g.producer(
      g.producer(g.producer(g.node(*g.find_node("fc")).inputs[0])->inputs[0])->inputs[0]);
  ASSERT_NE(clip, nullptr);
  EXPECT_EQ(g.constant(clip->inputs[1])->item<float>(), -4.0f);
  EXPECT_EQ(g.constant(clip->inputs[2])->item<float>(), 11.5f);  // (31 - 8) / 2
}

TEST(Lower, AGemmWithReluBecomesOneIntegerNode) {
  Graph g = small_net();
  insert_qdq(g, small_plan());
  const LoweringReport report = lower_to_integer(g);
  EXPECT_TRUE(report.refused.empty());
  EXPECT_EQ(g.num_nodes(), 3u);  // Q(x), QGemm, DQ(y)
  ASSERT_EQ(count(g, ops::kQGemm, ops::kDomain), 1u);
  for (const NodeId id : g.nodes()) {
    const Node& n = g.node(id);
    if (!n.is(ops::kQGemm, ops::kDomain)) continue;
    ASSERT_EQ(n.inputs.size(), 9u);
    EXPECT_EQ(g.constant(n.inputs[8])->to_ints(), (std::vector<int64_t>{1, -2}));
    EXPECT_EQ(g.constant(n.inputs[6])->item<float>(), 0.25f);
    EXPECT_FALSE(n.has("qmin"));  // Relu on a grid whose zero_point is qmin: nothing to clamp
  }
}

TEST(Lower, AReluBelowZeroPointBecomesACodeLimit) {
  Graph g = small_net();
  QdqPlan plan = small_plan();
  plan.activations["y"] = grid(0.25f, 3, true);
  insert_qdq(g, plan);
  lower_to_integer(g);
  for (const NodeId id : g.nodes()) {
    if (g.node(id).is(ops::kQGemm, ops::kDomain)) {
      EXPECT_EQ(g.node(id).int_or("qmin", -999), 3);
      EXPECT_FALSE(g.node(id).has("qmax"));
    }
  }
}

TEST(Lower, WithoutQuantizedOutputTheResultStaysFloat) {
  Graph g = small_net();
  QdqPlan plan = small_plan();
  plan.activations.erase("y");
  insert_qdq(g, plan);
  lower_to_integer(g);
  EXPECT_EQ(g.num_nodes(), 2u);  // Q(x), QGemm with float output
  const Node* n = g.producer(g.outputs()[0]);
  ASSERT_TRUE(n->is(ops::kQGemm, ops::kDomain));
  EXPECT_EQ(n->float_or("min", -1), 0.0f);  // the Relu
  EXPECT_EQ(n->input(6), kNoId);
}

TEST(Lower, FloatBiasIsRoundedToItsGrid) {
  Graph g = small_net();
  QdqPlan plan = small_plan();
  plan.biases.clear();  // b = 0.5, -1 on the grid 0.5 * 1
  insert_qdq(g, plan);
  lower_to_integer(g);
  for (const NodeId id : g.nodes()) {
    if (g.node(id).is(ops::kQGemm, ops::kDomain)) {
      EXPECT_EQ(g.constant(g.node(id).inputs[8])->to_ints(), (std::vector<int64_t>{1, -2}));
    }
  }
}

TEST(Lower, WeightOnlyKeepsFloatActivations) {
  Graph g = small_net();
  QdqPlan plan;
  plan.weights["w"] = small_plan().weights["w"];
  insert_qdq(g, plan);
  lower_to_integer(g);
  EXPECT_EQ(count(g, ops::kWGemm, ops::kDomain), 1u);
  EXPECT_EQ(count(g, "DequantizeLinear"), 0u);
}

TEST(Lower, MovementRunsOnCodes) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 2, 4, 4});
  const NodeId pool =
      g.add_node("MaxPool", {x}, {"p"}, {{"kernel_shape", std::vector<int64_t>{2, 2}}});
  const NodeId flat = g.add_node("Flatten", {g.node(pool).outputs[0]}, {"y"});
  g.add_output(g.node(flat).outputs[0]);
  QdqPlan plan;
  plan.activations["x"] = grid(0.5f, 7);
  insert_qdq(g, plan);
  lower_to_integer(g);
  // Q -> MaxPool -> Flatten -> DQ
  EXPECT_EQ(g.num_nodes(), 4u);
  EXPECT_TRUE(g.producer(g.outputs()[0])->is("DequantizeLinear"));
  EXPECT_EQ(g.value(g.producer(g.outputs()[0])->inputs[0]).dtype, DType::uint8);
}

TEST(Lower, WhatIsNotLoweredIsReportedWithItsReason) {
  Graph g = small_net();
  QdqPlan plan = small_plan();
  plan.weights.clear();
  insert_qdq(g, plan);
  const LoweringReport report = lower_to_integer(g);
  ASSERT_FALSE(report.refused.empty());
  EXPECT_EQ(report.refused[0].node, "fc");
  EXPECT_NE(report.refused[0].reason.find("weights"), std::string::npos);
}

}  // namespace
}  // namespace narrow
