// SPDX-License-Identifier: Apache-2.0
// A quantized graph taken apart and put together: nothing may be lost on the way.
#include "narrow/ptq/lift.h"

#include <limits>

#include "narrow/quant/quantize.h"
#include "ptq/ptq_testing.h"

namespace narrow {
namespace {

using namespace testing;

const Tensor& images() {
  static const Tensor data = random_tensor({16, 3, 8, 8}, 77, 1, 0.3f);
  return data;
}

/// Two convolutions that meet in a Concat and an Add.
SmallNet branches() {
  SmallNet n;
  const ValueId x = n.input({1, 3, 8, 8});
  const ValueId a = n.op("Relu", "relu", {n.conv("stem", x, 3, 8, {.pad = 1})});
  const ValueId b = n.op("Relu", "relu_b", {n.conv("one", a, 8, 4, {.kernel = 1})});
  const ValueId c = n.op("Relu", "relu_c", {n.conv("three", a, 8, 4, {.pad = 1})});
  const ValueId cat = n.op("Concat", "cat", {b, c}, {{"axis", int64_t{1}}});
  const ValueId sum = n.op("Add", "sum", {cat, a});
  const ValueId p =
      n.op("MaxPool", "pool", {sum},
           {{"kernel_shape", std::vector<int64_t>{2, 2}}, {"strides", std::vector<int64_t>{2, 2}}});
  n.output(n.gemm("fc", n.op("Flatten", "flat", {p}), 128, 5));
  n.infer();
  return n;
}

QuantizeOptions with_bits(int weights, int activations) {
  QuantizeOptions o = options_for("narrow");
  o.weights = NumberType{false, true, weights};
  o.activations = NumberType{false, false, activations};
  return o;
}

/// Nodes and every constant.
void expect_same(const Graph& a, const Graph& b) {
  EXPECT_EQ(a.num_nodes(), b.num_nodes());
  for (const ValueId id : a.live_values()) {
    if (!a.value(id).is_constant()) continue;
    const std::string& name = a.value(id).name;
    EXPECT_TRUE(identical(a.value(id).constant, constant_of(b, name))) << name;
  }
}

TEST(LiftTest, WhatDidNotChangeComesBack) {
  for (const int bits : {8, 4, 3}) {
    const Graph file = quantized(branches().g, with_bits(bits, bits), images());
    const LiftedModel lifted = lift(file);
    EXPECT_EQ(count(lifted.graph, "QuantizeLinear"), 0);
    EXPECT_EQ(count(lifted.graph, "DequantizeLinear"), 0);
    EXPECT_EQ(count(lifted.graph, "Clip"), 0) << bits;
    ASSERT_TRUE(lifted.weights.contains("stem_w"));
    EXPECT_EQ(lifted.weights.at("stem_w").params.scheme.bits, bits);
    EXPECT_EQ(lifted.activations.at("relu_y").params.scheme.bits, bits);
    EXPECT_EQ(lifted.biases.at("stem_b").weights, "stem_w");
    expect_same(file, put_back(lifted, {}));
    // The same numbers, given.
    LiftedState state;
    for (const auto& [name, w] : lifted.weights) {
      state.weights[name] = w.params;
      state.parameters[name] = constant_of(lifted.graph, name);
    }
    for (const auto& [name, a] : lifted.activations) state.activations[name] = a.params;
    expect_same(file, put_back(lifted, state));
  }
}

TEST(LiftTest, RoundingTheFloatGraphIsTheFile) {
  const Graph file = quantized(branches().g, with_bits(4, 4), images());
  const LiftedModel lifted = lift(file);
  // The float graph with its weights, which have the values of the codes, and its values rounded.
  Graph again = lifted.graph;
  QdqPlan plan;
  for (const auto& [name, a] : lifted.activations) plan.activations[name] = a.params;
  insert_qdq(again, plan);
  infer_shapes(again);
  EXPECT_GT(sqnr_db(run(file, images())[0], run(again, images())[0]), 60);
}

TEST(LiftTest, ValuesThatMoveShareAGrid) {
  const LiftedModel lifted = lift(quantized(branches().g, with_bits(8, 8), images()));
  const auto group = [&](const char* name) { return lifted.activations.at(name).group; };
  EXPECT_EQ(group("sum_y"), group("pool_y"));
  EXPECT_EQ(group("pool_y"), group("flat_y"));
  EXPECT_NE(group("relu_y"), group("sum_y"));
}

TEST(LiftTest, NewNumbersGoToTheirPlaces) {
  const Graph file = quantized(branches().g, with_bits(4, 4), images());
  const LiftedModel lifted = lift(file);
  LiftedState state;
  Tensor w = constant_of(lifted.graph, "fc_w").clone();
  for (float& v : w.mutable_data<float>()) v = -v;
  state.parameters["fc_w"] = w;
  for (const auto& [name, a] : lifted.activations) {
    QuantParams params = a.params;
    params.scale = Tensor::scalar(2 * a.params.scale.item<float>());
    state.activations[name] = params;
  }
  const Graph back = put_back(lifted, state);
  const LiftedModel now = lift(back);
  EXPECT_EQ(now.graph.num_nodes(), lifted.graph.num_nodes());  // a Clip moves with its grid
  const QuantParams& grid = lifted.weights.at("fc_w").params;
  EXPECT_TRUE(identical(constant_of(now.graph, "fc_w"), fake_quant(w, grid)));
  for (const auto& [name, a] : now.activations) {
    EXPECT_EQ(a.params.scale.item<float>(),
              2 * lifted.activations.at(name).params.scale.item<float>());
    EXPECT_EQ(a.params.scheme, lifted.activations.at(name).params.scheme);
  }
  // The scale of a bias is that of the input times that of the weights.
  EXPECT_EQ(now.biases.at("fc_b").weights, "fc_w");
  const auto before = constant_of(lifted.graph, "fc_b").to_floats();
  const auto after = constant_of(now.graph, "fc_b").to_floats();
  const auto steps = now.file.constant(now.biases.at("fc_b").scale)->to_floats();
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(before[i], after[i], 0.501F * steps[i]);
}

TEST(LiftTest, ValuesThatAreAlsoReadAsFloatsGetACopy) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{4});
  const ValueId s = g.add_initializer("s", Tensor::scalar(0.5F));
  const ValueId z = g.add_initializer("z", Tensor::scalar<uint8_t>(3));
  const ValueId q = g.node(g.add_node("QuantizeLinear", {x, s, z}, {"q"})).outputs[0];
  const ValueId d = g.node(g.add_node("DequantizeLinear", {q, s, z}, {"d"})).outputs[0];
  g.add_output(g.node(g.add_node("Sub", {x, d}, {"y"})).outputs[0]);
  infer_shapes(g);
  const LiftedModel lifted = lift(g);
  EXPECT_FALSE(lifted.activations.contains("x"));
  ASSERT_EQ(lifted.activations.size(), 1);
  EXPECT_EQ(count(lifted.graph, "Identity"), 1);
  expect_same(g, put_back(lifted, {}));
}

TEST(LiftTest, GridsThatAreNoneAreRefused) {
  for (const float scale : {0.0F, -1.0F, std::numeric_limits<float>::infinity()}) {
    Graph g;
    const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 2});
    const ValueId w = g.add_initializer("w", Tensor::from<int8_t>({1, 2, 3, 4}, {2, 2}));
    const ValueId s = g.add_initializer("s", Tensor::scalar(scale));
    const ValueId d = g.node(g.add_node("DequantizeLinear", {w, s}, {"d"})).outputs[0];
    g.add_output(g.node(g.add_node("MatMul", {x, d}, {"y"})).outputs[0]);
    expect_in(refusal([&] { lift(g); }, ErrorCode::corrupt_data), "'s'");
  }
}

TEST(LiftTest, SharedInitializersAreTakenApart) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{2, 2});
  const ValueId w = g.add_initializer("w", Tensor::from<int8_t>({1, 2, 3, 100}, {2, 2}));
  const ValueId s = g.add_initializer("s", Tensor::scalar(0.5F));
  const ValueId a = g.node(g.add_node("DequantizeLinear", {w, s}, {"a"})).outputs[0];
  const ValueId b = g.node(g.add_node("DequantizeLinear", {w, s}, {"b"})).outputs[0];
  const ValueId h = g.node(g.add_node("MatMul", {x, a}, {"h"})).outputs[0];
  g.add_output(g.node(g.add_node("MatMul", {h, b}, {"y"})).outputs[0]);
  infer_shapes(g);
  const LiftedModel lifted = lift(g);
  ASSERT_EQ(lifted.weights.size(), 2);
  const auto& [name, first] = *lifted.weights.begin();
  LiftedState state;
  state.parameters[name] = Tensor::from<float>({0, 0, 0, 50}, {2, 2});
  const LiftedModel now = lift(put_back(lifted, state));
  int changed = 0;
  for (const auto& [other, weight] : now.weights) {
    changed += constant_of(now.graph, other).data<float>()[0] == 0 ? 1 : 0;
  }
  EXPECT_EQ(changed, 1);
}

}  // namespace
}  // namespace narrow
