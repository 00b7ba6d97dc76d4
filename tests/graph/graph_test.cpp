// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/graph.h"

#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/core/error.h"

namespace narrow {
namespace {

/// x -> Relu a -> Tanh b -> (out)
struct Chain : Net {
  ValueId x = input(SymbolicShape{4});
  NodeId relu = node("Relu", {x});
  ValueId a = g.node(relu).outputs[0];
  NodeId tanh = node("Tanh", {a});
  ValueId b = g.node(tanh).outputs[0];
  Chain() { output(b); }
};

std::vector<std::string> op_order(const Graph& g) {
  std::vector<std::string> ops;
  for (const NodeId id : g.nodes()) ops.push_back(g.node(id).op);
  return ops;
}

TEST(Graph, NodesKnowTheirNeighbours) {
  Chain c;
  EXPECT_EQ(c.g.producer_id(c.a), c.relu);
  EXPECT_EQ(c.g.producer(c.x), nullptr);
  EXPECT_EQ(c.g.single_user(c.a), c.tanh);
  EXPECT_EQ(c.g.single_user(c.b), kNoId);
  EXPECT_EQ(c.g.value(c.x).uses, (std::vector<Use>{{c.relu, 0}}));
}

TEST(Graph, NamesAreMadeUnique) {
  Net n;
  const ValueId x = n.input(SymbolicShape{1});
  for (int i = 0; i < 3; ++i) n.op("Relu", {x});
  EXPECT_TRUE(n.g.find_value("Relu_0_2").has_value());
  EXPECT_EQ(n.g.unique_name("Relu_0"), "Relu_0_3");
  EXPECT_EQ(n.g.unique_name("fresh"), "fresh");
  EXPECT_EQ(n.g.node(n.g.nodes()[0]).name, "Relu_Relu_0");
  EXPECT_THROW(n.g.add_value("Relu_0"), Error);
  EXPECT_THROW(n.g.add_value(""), Error);
}

TEST(Graph, ValuesAreWrittenOnce) {
  Chain c;
  EXPECT_THROW(c.g.add_node_onto("Relu", {c.x}, {c.a}), Error);
  EXPECT_THROW(c.g.add_node_onto("Relu", {c.a}, {c.x}), Error);
}

TEST(Graph, ReplacingUsesMovesTheOutputName) {
  Chain c;
  const std::string name = c.g.value(c.b).name;
  c.g.replace_uses(c.b, c.a);
  EXPECT_EQ(c.g.outputs(), std::vector<ValueId>{c.a});
  EXPECT_EQ(c.g.value(c.a).name, name);
  c.g.remove_node(c.tanh);
  EXPECT_EQ(c.g.num_nodes(), 1u);
  c.infer();
  EXPECT_NO_THROW(verify(c.g));
}

TEST(Graph, UsedNodesCannotBeRemoved) {
  Chain c;
  EXPECT_THROW(c.g.remove_node(c.relu), Error);
  EXPECT_THROW(c.g.remove_node(c.tanh), Error);  // a graph output
}

TEST(Graph, SetInputKeepsUses) {
  Chain c;
  c.g.set_input(c.tanh, 0, c.x);
  EXPECT_TRUE(c.g.value(c.a).uses.empty());
  EXPECT_EQ(c.g.value(c.x).uses.size(), 2u);
  c.g.set_input(c.tanh, 2, c.a);  // a gap is an absent input
  EXPECT_EQ(c.g.node(c.tanh).inputs, (std::vector<ValueId>{c.x, kNoId, c.a}));
}

TEST(Graph, SetConstantCutsTheProducer) {
  Chain c;
  c.g.set_constant(c.a, Tensor(DType::float32, {4}));
  EXPECT_EQ(c.g.producer(c.a), nullptr);
  EXPECT_EQ(c.g.node(c.relu).outputs, std::vector<ValueId>{kNoId});
  c.g.remove_node(c.relu);
  c.infer();
  EXPECT_NO_THROW(verify(c.g));
}

TEST(Graph, SortIsTopologicalAndStable) {
  Net n;
  const ValueId x = n.input(SymbolicShape{1});
  const ValueId late = n.g.add_value("late");
  n.op("Sin", {late});
  n.op("Cos", {x});
  n.op("Tan", {x});
  n.g.add_node_onto("Exp", {x}, {late});
  n.g.sort();
  EXPECT_EQ(op_order(n.g), (std::vector<std::string>{"Cos", "Tan", "Exp", "Sin"}));
}

TEST(Graph, CyclesAreNamed) {
  Net n;
  const ValueId loop = n.g.add_value("loop");
  const ValueId y = n.op("Relu", {loop});
  n.g.add_node_onto("Tanh", {y}, {loop}, {}, "", "back");
  try {
    n.g.sort();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::corrupt_data);
    EXPECT_NE(std::string(e.what()).find("'back'"), std::string::npos) << e.what();
  }
}

TEST(Graph, RemoveDeadKeepsWhatOutputsNeed) {
  Chain c;
  const ValueId unused = c.op("Exp", {c.op("Sin", {c.a})});
  c.zeros({3});
  EXPECT_TRUE(c.g.value(unused).alive);
  EXPECT_EQ(c.g.remove_dead(), 2);
  EXPECT_EQ(op_order(c.g), (std::vector<std::string>{"Relu", "Tanh"}));
  EXPECT_FALSE(c.g.find_value("const").has_value());
}

TEST(Graph, CopiesAreIndependent) {
  Chain c;
  auto body = std::make_shared<Graph>();
  body->add_output(body->add_initializer("y", Tensor::scalar(1.0f)));
  const NodeId branch =
      c.node("If", {c.scalar(true)}, {{"then_branch", body}, {"else_branch", body}});
  Graph copy = c.g;
  copy.node(branch).graph("then_branch")->name = "changed";
  EXPECT_EQ(c.g.node(branch).graph("then_branch")->name, "main");
  copy.set_op(c.relu, "Sigmoid");
  EXPECT_EQ(c.g.node(c.relu).op, "Relu");
}

TEST(Graph, AttributesOfAnotherTypeAreRefused) {
  Net n;
  const NodeId id = n.node("Foo", {}, {{"a", int64_t{3}}, {"f", 1.5f}});
  EXPECT_EQ(n.g.node(id).int_or("a", 0), 3);
  EXPECT_EQ(n.g.node(id).int_or("b", 7), 7);
  EXPECT_THROW(n.g.node(id).float_or("a", 0), Error);
  EXPECT_THROW(n.g.node(id).ints_or("f", {}), Error);
  EXPECT_EQ(n.g.node(id).tensor("a"), nullptr);
}

TEST(Graph, ShapesAsText) {
  EXPECT_EQ(to_string(SymbolicShape{Dim::symbol("N"), 3, Dim()}), "[N, 3, ?]");
  EXPECT_EQ(to_string(SymbolicShape{}), "[]");
  EXPECT_EQ(concrete(SymbolicShape{2, 3}), (Dims{2, 3}));
  EXPECT_EQ(concrete(SymbolicShape{2, Dim()}), std::nullopt);
}

}  // namespace
}  // namespace narrow
