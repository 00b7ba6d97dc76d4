// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/control_flow.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "narrow/runtime/program.h"
#include "runtime/toy_ops.h"

namespace narrow {
namespace {

ValueId add(Graph& g, const char* op, std::vector<ValueId> inputs, const char* output,
            Attributes attributes = {}) {
  return g.node(g.add_node(op, std::move(inputs), {output}, std::move(attributes))).outputs[0];
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing thrown";
}

Tensor floats(std::vector<float> values, Dims dims) {
  return Tensor::from(values, std::move(dims));
}

/// y = flag ? relu(x) : x + c, with x and c captured.
Graph if_graph(const char* op = "Relu") {
  auto then_branch = std::make_shared<Graph>();
  const ValueId tx = then_branch->add_input("tx", DType::float32, std::nullopt);
  then_branch->add_input("tc", DType::float32, std::nullopt);
  then_branch->add_output(add(*then_branch, op, {tx}, "inner"));
  auto else_branch = std::make_shared<Graph>();
  const ValueId ex = else_branch->add_input("ex", DType::float32, std::nullopt);
  const ValueId ec = else_branch->add_input("ec", DType::float32, std::nullopt);
  else_branch->add_output(add(*else_branch, "Add", {ex, ec}, "ey"));
  Graph g;
  const ValueId flag = g.add_input("flag", DType::boolean, SymbolicShape{});
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 2});
  const ValueId c = g.add_initializer("c", Tensor::scalar(10.0f));
  const ValueId y =
      add(g, "If", {flag, x, c}, "y",
          {{"then_branch", then_branch}, {"else_branch", else_branch}, {kCaptures, int64_t{2}}});
  g.add_output(add(g, "Add", {y, c}, "z"));
  return g;
}

TEST(ControlFlow, IfTakesOneBranch) {
  PlanOptions options = toy::options();
  options.observed = {"inner"};
  const Program program(if_graph(), options);
  const Tensor x = floats({-1, 2, 3, -4}, {2, 2});
  int observed = 0;
  RunOptions run;
  run.observe = [&](const std::string& name, const Tensor& value) {
    EXPECT_EQ(name, "inner");
    EXPECT_TRUE(identical(value, floats({0, 2, 3, 0}, {2, 2})));
    ++observed;
  };
  auto out = program.run(std::vector{Tensor::scalar(true), x}, run);
  EXPECT_TRUE(identical(out[0], floats({10, 12, 13, 10}, {2, 2})));
  EXPECT_EQ(observed, 1);
  out = program.run(std::vector{Tensor::scalar(false), x}, run);
  EXPECT_TRUE(identical(out[0], floats({19, 22, 23, 16}, {2, 2})));
  EXPECT_EQ(observed, 1);
}

TEST(ControlFlow, ChoicesProfileAndMemoryIncludeBodies) {
  PlanOptions options = toy::options();
  options.profile = true;
  const Program program(if_graph("Softplus"), options);
  std::vector<KernelChoice> choices;
  program.collect_choices("", choices);
  EXPECT_EQ(choices[0].chosen, "subgraph");
  EXPECT_EQ(choices[1].node, "If_y/then_branch/Softplus_inner");
  EXPECT_EQ(program.memory().packed_bytes, 100u);
  program.run(std::vector{Tensor::scalar(true), floats({1, 2}, {1, 2})}, {});
  std::vector<NodeProfile> profile;
  program.collect_profile("", profile);
  EXPECT_EQ(profile[1].node, "If_y/then_branch/Softplus_inner");
  EXPECT_EQ(profile[1].runs, 1);
  EXPECT_EQ(profile[0].depth, 0);
  EXPECT_EQ(profile[1].depth, 1);
  EXPECT_EQ(program.count_macs({{}, {1, 2}}).total, 2);
}

TEST(ControlFlow, UnsupportedNodesOfBodiesAreListed) {
  EXPECT_EQ(message_of([] { const Program program(if_graph("Exp"), toy::options()); }),
            "1 node cannot run:\n"
            "  in 'If_y': 'Exp_inner' (Exp): first: not today; second: not today");
}

TEST(ControlFlow, BodyThatDoesNotFit) {
  Graph g = if_graph();
  g.attributes(*g.find_node("If_y"))["then_branch"] = std::make_shared<Graph>();
  EXPECT_THROW(Program(g, toy::options()), Error);
}

/// state' = state + step; scan output: state'. Goes on while state' < limit.
Graph loop_graph(bool with_trip_count) {
  auto body = std::make_shared<Graph>();
  body->add_input("i", DType::int64, SymbolicShape{});
  body->add_input("going", DType::boolean, SymbolicShape{});
  const ValueId state = body->add_input("state", DType::float32, std::nullopt);
  const ValueId step = body->add_input("step", DType::float32, std::nullopt);
  const ValueId limit = body->add_input("limit", DType::float32, std::nullopt);
  const ValueId next = add(*body, "Add", {state, step}, "next");
  body->add_output(add(*body, "Less", {next, limit}, "go_on"));
  body->add_output(next);
  body->add_output(add(*body, "Identity", {next}, "scanned"));
  Graph g;
  const ValueId trips = g.add_input("trips", DType::int64, SymbolicShape{});
  const ValueId start = g.add_input("start", DType::float32, SymbolicShape{});
  const ValueId by = g.add_initializer("by", Tensor::scalar(1.5f));
  const ValueId to = g.add_initializer("to", Tensor::scalar(4.0f));
  const NodeId loop = g.add_node("Loop", {with_trip_count ? trips : kNoId, kNoId, start, by, to},
                                 {"last", "all"}, {{"body", body}, {kCaptures, int64_t{2}}});
  g.add_output(g.node(loop).outputs[0]);
  g.add_output(add(g, "Relu", {g.node(loop).outputs[1]}, "y"));
  return g;
}

TEST(ControlFlow, LoopStopsByConditionAndByCount) {
  PlanOptions options = toy::options();
  options.observed = {"next"};
  const Program program(loop_graph(true), options);
  std::vector<float> seen;
  RunOptions run;
  run.observe = [&](const std::string&, const Tensor& v) { seen.push_back(v.item<float>()); };
  const Tensor start = Tensor::scalar(0.0f);
  auto out = program.run(std::vector{Tensor::scalar<int64_t>(100), start}, run);
  EXPECT_TRUE(identical(out[0], Tensor::scalar(4.5f)));
  EXPECT_TRUE(identical(out[1], Tensor::vector<float>({1.5, 3, 4.5})));
  EXPECT_EQ(seen, (std::vector<float>{1.5, 3, 4.5}));  // every iteration is observed
  out = program.run(std::vector{Tensor::scalar<int64_t>(2), start}, {});
  EXPECT_TRUE(identical(out[1], Tensor::vector<float>({1.5, 3})));
  out = program.run(std::vector{Tensor::scalar<int64_t>(0), start}, {});
  EXPECT_TRUE(identical(out[0], start));
  EXPECT_TRUE(identical(out[1], Tensor(DType::float32, {0})));
}

TEST(ControlFlow, LoopWithoutTripCount) {
  const Program program(loop_graph(false), toy::options());
  const auto out = program.run(std::vector{Tensor::scalar<int64_t>(0), Tensor::scalar(2.0f)}, {});
  EXPECT_TRUE(identical(out[1], Tensor::vector<float>({3.5, 5})));
}

TEST(ControlFlow, LoopStateMayGrow) {
  auto body = std::make_shared<Graph>();
  body->add_input("i", DType::int64, SymbolicShape{});
  const ValueId going = body->add_input("going", DType::boolean, SymbolicShape{});
  const ValueId state = body->add_input("state", DType::float32, std::nullopt);
  body->add_output(add(*body, "Identity", {going}, "go_on"));
  body->add_output(add(*body, "Concat", {state, state}, "twice", {{"axis", int64_t{0}}}));
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 2});
  const ValueId trips = g.add_initializer("trips", Tensor::scalar<int64_t>(3));
  const ValueId y = add(g, "Loop", {trips, kNoId, x}, "y", {{"body", body}});
  g.add_output(add(g, "Relu", {y}, "z"));
  const Program program(g, toy::options());
  const auto out = program.run(std::vector{floats({1, 2}, {1, 2})}, {});
  EXPECT_EQ(out[0].dims(), (Dims{8, 2}));
  EXPECT_EQ(out[0].data<float>()[14], 1);
}

/// Running sums along an axis.
Graph scan_graph(int64_t in_axis, int64_t backward, int64_t out_axis) {
  auto body = std::make_shared<Graph>();
  const ValueId state = body->add_input("state", DType::float32, std::nullopt);
  const ValueId slice = body->add_input("slice", DType::float32, std::nullopt);
  const ValueId factor = body->add_input("factor", DType::float32, std::nullopt);
  const ValueId sum = add(*body, "Add", {state, slice}, "sum");
  body->add_output(sum);
  body->add_output(add(*body, "Mul", {sum, factor}, "scaled"));
  Graph g;
  const ValueId start = g.add_input("start", DType::float32, SymbolicShape{Dim()});
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim(), Dim()});
  const ValueId factor_outside = g.add_initializer("f", Tensor::scalar(2.0f));
  const NodeId scan = g.add_node("Scan", {start, x, factor_outside}, {"last", "all"},
                                 {{"body", body},
                                  {kCaptures, int64_t{1}},
                                  {"num_scan_inputs", int64_t{1}},
                                  {"scan_input_axes", std::vector<int64_t>{in_axis}},
                                  {"scan_input_directions", std::vector<int64_t>{backward}},
                                  {"scan_output_axes", std::vector<int64_t>{out_axis}}});
  g.add_output(g.node(scan).outputs[0]);
  g.add_output(g.node(scan).outputs[1]);
  return g;
}

TEST(ControlFlow, ScanAlongEitherAxis) {
  const Tensor x = floats({1, 2, 3, 4, 5, 6}, {2, 3});
  auto out = Program(scan_graph(0, 0, 0), toy::options())
                 .run(std::vector{Tensor(DType::float32, {3}), x}, {});
  EXPECT_TRUE(identical(out[0], floats({5, 7, 9}, {3})));
  EXPECT_TRUE(identical(out[1], floats({2, 4, 6, 10, 14, 18}, {2, 3})));
  out = Program(scan_graph(1, 1, -1), toy::options())
            .run(std::vector{Tensor(DType::float32, {2}), x}, {});
  EXPECT_TRUE(identical(out[0], floats({6, 15}, {2})));
  EXPECT_TRUE(identical(out[1], floats({6, 10, 12, 12, 22, 30}, {2, 3})));
  out = Program(scan_graph(0, 0, 0), toy::options())
            .run(std::vector{Tensor(DType::float32, {3}), Tensor(DType::float32, {0, 3})}, {});
  EXPECT_TRUE(identical(out[0], Tensor(DType::float32, {3})));
  EXPECT_EQ(out[1].dims()[0], 0);
}

}  // namespace
}  // namespace narrow
