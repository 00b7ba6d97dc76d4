// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/passes/passes.h"

#include <gtest/gtest.h>

#include "narrow/core/error.h"
#include "narrow/graph/op_table.h"

namespace narrow {
namespace {

size_t count(const Graph& g, std::string_view op) {
  size_t n = 0;
  for (const NodeId id : g.nodes()) n += g.node(id).op == op ? 1 : 0;
  return n;
}

ValueId one(Graph& g, const char* op, std::vector<ValueId> in, const std::string& out,
            Attributes a = {}) {
  return g.node(g.add_node(op, std::move(in), {out}, std::move(a))).outputs[0];
}

Graph conv_graph(ValueId* y) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 1, 4, 4});
  const ValueId w =
      g.add_initializer("w", Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8}, {2, 1, 2, 2}));
  const ValueId b = g.add_initializer("b", Tensor::from<float>({1, -1}, {2}));
  *y = one(g, "Conv", {x, w, b}, "conv");
  return g;
}

TEST(FoldBatchNorm, ScalesWeightsAndBias) {
  ValueId y = kNoId;
  Graph g = conv_graph(&y);
  const auto vec = [&](const char* n, float a, float b) {
    return g.add_initializer(n, Tensor::from<float>({a, b}, {2}));
  };
  y = one(g, "BatchNormalization",
          {y, vec("s", 2, 4), vec("t", 0.5f, 1), vec("m", 1, 2), vec("v", 4, 16)}, "bn",
          {{"epsilon", 0.0f}});
  g.add_output(y);
  infer_shapes(g);
  EXPECT_EQ(fold_batch_norm(g, {}), 1);
  verify(g);
  ASSERT_EQ(g.num_nodes(), 1u);
  const Node& conv = g.node(g.nodes()[0]);
  EXPECT_EQ(g.value(conv.outputs[0]).name, "bn");  // the output keeps its name
  // factor 2/sqrt(4) = 1 and 4/sqrt(16) = 1; bias 1 - 1 + 0.5 and -1 - 2 + 1
  EXPECT_EQ(g.constant(conv.inputs[2])->to_floats(), (std::vector<float>{0.5f, -2}));
}

TEST(FoldBatchNorm, TakesChannelFactorsAndShiftsButNotOthers) {
  ValueId y = kNoId;
  Graph g = conv_graph(&y);
  y = one(g, "Mul", {y, g.add_initializer("f", Tensor::from<float>({2, 3}, {1, 2, 1, 1}))}, "mul");
  y = one(g, "Add", {g.add_initializer("h", Tensor::scalar(10.0f)), y}, "add");
  y = one(g, "Mul", {y, g.add_initializer("rows", Tensor::from<float>({1, 2, 3}, {3, 1}))}, "late");
  g.add_output(y);
  infer_shapes(g);
  EXPECT_EQ(fold_batch_norm(g, {}), 2);
  EXPECT_EQ(g.num_nodes(), 2u);
  const Node& conv = g.node(g.nodes()[0]);
  EXPECT_EQ(g.constant(conv.inputs[1])->to_floats(),
            (std::vector<float>{2, 4, 6, 8, 15, 18, 21, 24}));
  EXPECT_EQ(g.constant(conv.inputs[2])->to_floats(), (std::vector<float>{12, 7}));
}

TEST(FoldBatchNorm, LeavesAValueThatIsUsedTwice) {
  ValueId y = kNoId;
  Graph g = conv_graph(&y);
  g.add_output(one(g, "Mul", {y, g.add_initializer("f", Tensor::scalar(2.0f))}, "mul"));
  g.add_output(y);
  infer_shapes(g);
  EXPECT_EQ(fold_batch_norm(g, {}), 0);
}

TEST(EliminateIdentities, RemovesWhatChangesNothing) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 3});
  ValueId y = one(g, "Identity", {x}, "a");
  y = one(g, "Dropout", {y}, "b");
  y = one(g, "Cast", {y}, "c", {{"to", int64_t{1}}});
  y = one(g, "Transpose", {y}, "d", {{"perm", std::vector<int64_t>{0, 1}}});
  y = one(g, "Relu", {y}, "e");
  y = one(g, "Reshape", {y, g.add_initializer("shape", Tensor::vector<int64_t>({2, 3}))}, "f");
  g.add_output(y);
  infer_shapes(g);
  EXPECT_EQ(eliminate_identities(g, {}), 5);
  EXPECT_EQ(g.num_nodes(), 1u);
  EXPECT_EQ(g.value(g.outputs()[0]).name, "f");
  verify(g);
}

TEST(EliminateIdentities, KeepsRealWork) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 3});
  const ValueId t = one(g, "Transpose", {x}, "t");  // default: reversed
  const ValueId c = one(g, "Cast", {t}, "c", {{"to", int64_t{7}}});
  g.add_output(c);
  g.add_output(one(g, "Identity", {x}, "copy"));  // an output that is an input
  infer_shapes(g);
  EXPECT_EQ(eliminate_identities(g, {}), 0);
}

TEST(FoldConstants, KnownShapesBecomeConstants) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 3, 4});
  const ValueId shape = one(g, "Shape", {x}, "shape");
  const ValueId index = g.add_initializer("i", Tensor::scalar<int64_t>(0));
  const ValueId dim = one(g, "Gather", {shape, index}, "dim");
  const ValueId axes = g.add_initializer("axes", Tensor::vector<int64_t>({0}));
  const ValueId first = one(g, "Unsqueeze", {dim, axes}, "first");
  const ValueId rest = g.add_initializer("rest", Tensor::vector<int64_t>({-1}));
  const ValueId target = one(g, "Concat", {first, rest}, "target", {{"axis", int64_t{0}}});
  g.add_output(one(g, "Reshape", {x, target}, "y"));
  EXPECT_GT(fold_constants(g, {}), 0);
  EXPECT_EQ(g.num_nodes(), 1u);
  EXPECT_EQ(g.constant(g.node(g.nodes()[0]).inputs[1])->to_ints(), (std::vector<int64_t>{2, -1}));
}

TEST(FoldConstants, LeavesDequantizeLinear) {
  Graph g;
  const ValueId q = g.add_initializer("q", Tensor::from<int8_t>({1, 2}, {2}));
  const ValueId s = g.add_initializer("s", Tensor::scalar(0.5f));
  g.add_output(one(g, "DequantizeLinear", {q, s}, "y"));
  PassContext context;
  context.evaluate = [](const Graph&, const Node&, std::span<const Tensor>) {
    return std::vector<Tensor>{Tensor::from<float>({0.5f, 1}, {2})};
  };
  EXPECT_EQ(fold_constants(g, context), 0);
}

TEST(FusePads, ZeroPadsGoIntoTheConvolution) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 1, 4, 4});
  const ValueId amounts =
      g.add_initializer("amounts", Tensor::vector<int64_t>({0, 0, 1, 2, 0, 0, 3, 4}));
  const ValueId p = one(g, "Pad", {x, amounts}, "p");
  const ValueId w = g.add_initializer("w", Tensor(DType::float32, {1, 1, 3, 3}));
  g.add_output(one(g, "Conv", {p, w}, "y", {{"pads", std::vector<int64_t>{1, 1, 1, 1}}}));
  infer_shapes(g);
  const SymbolicShape before = *g.value(g.outputs()[0]).shape;
  EXPECT_EQ(fuse_pads(g, {}), 1);
  EXPECT_EQ(g.num_nodes(), 1u);
  EXPECT_EQ(g.node(g.nodes()[0]).ints_or("pads", {}), (std::vector<int64_t>{2, 3, 4, 5}));
  infer_shapes(g);
  EXPECT_EQ(*g.value(g.outputs()[0]).shape, before);
}

TEST(FusePads, MaxPoolAndOtherFillsStay) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 1, 4, 4});
  const ValueId amounts =
      g.add_initializer("amounts", Tensor::vector<int64_t>({0, 0, 1, 1, 0, 0, 1, 1}));
  const Attributes kernel = {{"kernel_shape", std::vector<int64_t>{2, 2}}};
  g.add_output(one(g, "MaxPool", {one(g, "Pad", {x, amounts}, "p")}, "y", kernel));
  const ValueId fill = g.add_initializer("fill", Tensor::scalar(1.0f));
  g.add_output(one(g, "AveragePool", {one(g, "Pad", {x, amounts, fill}, "q")}, "z", kernel));
  infer_shapes(g);
  EXPECT_EQ(fuse_pads(g, {}), 0);
}

TEST(FuseActivations, TakesResidualAndRelu) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 1, 4, 4});
  const ValueId w = g.add_initializer("w", Tensor(DType::float32, {1, 1, 1, 1}));
  const ValueId c = one(g, "Conv", {x, w}, "c");
  const ValueId r = one(g, "Relu", {one(g, "Add", {x, c}, "sum")}, "r");
  g.add_output(r);
  infer_shapes(g);
  EXPECT_EQ(fuse_activations(g, {}), 1);
  ASSERT_EQ(g.num_nodes(), 1u);
  const Node& fused = g.node(g.nodes()[0]);
  EXPECT_EQ(fused.op, "FusedConv");
  EXPECT_EQ(fused.string_or("activation", ""), "Relu");
  ASSERT_EQ(fused.inputs.size(), 4u);
  EXPECT_EQ(fused.inputs[3], x);
  verify(g);
}

TEST(Passes, UnknownNamesAreRefusedAndDisabledOnesDoNotRun) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2});
  g.add_output(one(g, "Relu", {one(g, "Identity", {x}, "a")}, "y"));
  PassOptions options;
  options.disabled = {"fold_everything"};
  EXPECT_THROW(optimize(g, options), Error);
  options.disabled = {"eliminate_identities"};
  optimize(g, options);
  EXPECT_EQ(count(g, "Identity"), 1u);
  options.disabled.clear();
  const auto reports = optimize(g, options);
  EXPECT_EQ(count(g, "Identity"), 0u);
  EXPECT_EQ(reports.size(), all_passes().size());
  EXPECT_EQ(reports[0].changes, 1);
}

}  // namespace
}  // namespace narrow
