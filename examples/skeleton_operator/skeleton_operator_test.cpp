// SPDX-License-Identifier: Apache-2.0
#include "skeleton_operator.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string_view>

namespace narrow::examples {
namespace {

Graph graph_of(const Tensor& a, const Tensor& b, bool constant_b) {
  Graph g;
  const ValueId x = g.add_input("a", a.dtype(), symbolic(a.dims()));
  const ValueId w =
      constant_b ? g.add_initializer("b", b) : g.add_input("b", b.dtype(), symbolic(b.dims()));
  const NodeId id = g.add_node("SquaredDifference", {x, w}, {"y"}, {}, "example");
  g.mutable_value(g.node(id).outputs[0]).dtype = a.dtype();
  g.add_output(g.node(id).outputs[0]);
  return g;
}

const OpImpl& row_named(std::string_view name) {
  for (const OpImpl& row : squared_difference_rows()) {
    if (name == row.name) return row;
  }
  throw std::out_of_range("no such row");
}

Refusal refusal(std::string_view name, const Graph& g) {
  return row_named(name).accepts(g, g.node(g.nodes()[0]), {});
}

struct Context final : RunContext {
  TensorView& allocate_output(size_t, Dims) override { throw std::logic_error("shapes are known"); }
};

TensorView view_of(Tensor& t) {
  return {t.dtype(), t.dims(), Layout::plain, t.mutable_raw()};
}

Tensor run(std::string_view name, Tensor a, Tensor b, bool constant_b, const Dims& out) {
  const Graph g = graph_of(a, b, constant_b);
  const auto step = row_named(name).create(g, g.node(g.nodes()[0]), {});
  Tensor y(a.dtype(), out);
  const TensorView inputs[] = {view_of(a), view_of(b)};
  TensorView outputs[] = {view_of(y)};
  Context context;
  context.inputs = inputs;
  context.outputs = outputs;
  step->run(context);
  return y;
}

TEST(SquaredDifference, TheReferenceBroadcasts) {
  const Tensor a = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor b = Tensor::from<float>({1, 0, -1}, {3});
  const Tensor y = run("reference", a, b, false, {2, 3});
  EXPECT_TRUE(identical(y, Tensor::from<float>({0, 4, 16, 9, 25, 49}, {2, 3})));
}

TEST(SquaredDifference, EveryRowGivesTheSame) {
  const Tensor a = Tensor::from<float>({0.5F, -1.5F, 1e3F, 7.25F}, {4});
  const Tensor b = Tensor::scalar(0.75F);
  EXPECT_TRUE(identical(run("constant", a, b, true, {4}), run("reference", a, b, true, {4})));
}

TEST(SquaredDifference, RefusalsSayWhy) {
  const Tensor a = Tensor::vector<float>({1, 2});
  EXPECT_EQ(refusal("constant", graph_of(a, Tensor::scalar(1.0F), true)), "");
  EXPECT_EQ(refusal("constant", graph_of(a, Tensor::scalar(1.0F), false)), "b is no constant");
  EXPECT_EQ(refusal("constant", graph_of(a, a, true)), "b is float32[2], not a scalar");
  const Tensor integers = Tensor::vector<int32_t>({1, 2});
  EXPECT_EQ(refusal("reference", graph_of(integers, integers, false)), "input 0 is int32");
  EXPECT_NE(refusal("reference:float16", graph_of(a, a, false)), "");
}

}  // namespace
}  // namespace narrow::examples
