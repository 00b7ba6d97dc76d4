// SPDX-License-Identifier: Apache-2.0
// Graphs whose shapes depend on data, with the real operators: the tails of detectors.
#include <gtest/gtest.h>

#include <thread>

#include "narrow/core/error.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

ValueId add(Graph& g, const char* op, std::vector<ValueId> inputs, const char* output,
            Attributes attributes = {}) {
  return g.node(g.add_node(op, std::move(inputs), {output}, std::move(attributes))).outputs[0];
}

template <class T>
ValueId constant(Graph& g, const char* name, std::vector<T> values) {
  return g.add_initializer(name, Tensor::vector<T>(values));
}
ValueId scalar(Graph& g, const char* name, int64_t value) {
  return g.add_initializer(name, Tensor::scalar(value));
}

/// The boxes that survive suppression, moved by one; how many; and their running numbers.
Graph detector_tail() {
  Graph g;
  const ValueId boxes = g.add_input("boxes", DType::float32, SymbolicShape{1, Dim::symbol("A"), 4});
  const ValueId scores =
      g.add_input("scores", DType::float32, SymbolicShape{1, 1, Dim::symbol("A")});
  const ValueId selected =
      add(g, "NonMaxSuppression",
          {boxes, scores, constant<int64_t>(g, "most", {10}), constant<float>(g, "iou", {0.5f}),
           constant<float>(g, "least", {0.3f})},
          "selected");
  const ValueId which =
      add(g, "Gather", {selected, scalar(g, "two", 2)}, "which", {{"axis", int64_t{1}}});
  const ValueId flat = add(g, "Reshape", {boxes, constant<int64_t>(g, "rows", {-1, 4})}, "flat");
  const ValueId kept = add(g, "Gather", {flat, which}, "kept", {{"axis", int64_t{0}}});
  g.add_output(add(g, "Add", {kept, g.add_initializer("one", Tensor::scalar(1.0f))}, "moved"));
  const ValueId shape = add(g, "Shape", {kept}, "shape");
  const ValueId count = add(g, "Gather", {shape, scalar(g, "zero", 0)}, "count");
  g.add_output(count);
  g.add_output(add(g, "Range", {scalar(g, "from", 0), count, scalar(g, "by", 1)}, "numbers"));
  // A part with planned shapes beside it.
  g.add_output(add(g, "Relu", {scores}, "fixed"));
  return g;
}

std::vector<Tensor> three_boxes(std::vector<float> scores) {
  return {Tensor::from<float>({0, 0, 10, 10, 0, 1, 10, 11, 50, 50, 60, 60}, {1, 3, 4}),
          Tensor::from(scores, {1, 1, 3})};
}

TEST(SessionDynamic, DetectorTail) {
  const Session session(detector_tail());
  for (int round = 0; round < 2; ++round) {
    auto out = session.run(three_boxes({0.9f, 0.8f, 0.7f}));  // the second overlaps the first
    EXPECT_TRUE(identical(out[0], Tensor::from<float>({1, 1, 11, 11, 51, 51, 61, 61}, {2, 4})));
    EXPECT_TRUE(identical(out[1], Tensor::scalar<int64_t>(2)));
    EXPECT_TRUE(identical(out[2], Tensor::vector<int64_t>({0, 1})));
    EXPECT_EQ(out[3].dims(), (Dims{1, 1, 3}));
    out = session.run(three_boxes({0.1f, 0.8f, 0.2f}));
    EXPECT_TRUE(identical(out[0], Tensor::from<float>({1, 2, 11, 12}, {1, 4})));
    out = session.run(three_boxes({0.1f, 0.1f, 0.2f}));  // nothing is left
    EXPECT_EQ(out[0].dims(), (Dims{0, 4}));
    EXPECT_TRUE(identical(out[1], Tensor::scalar<int64_t>(0)));
    EXPECT_EQ(out[2].dims(), Dims{0});
  }
}

TEST(SessionDynamic, ConcurrentRunsDoNotMix) {
  const Session session(detector_tail());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const float second = t % 2 == 0 ? 0.2f : 0.95f;
      for (int i = 0; i < 50; ++i) {
        const auto out = session.run(three_boxes({0.1f, second, 0.7f}));
        EXPECT_EQ(out[0].dims(), (Dims{t % 2 == 0 ? 1 : 2, 4}));
        EXPECT_EQ(out[0].data<float>()[0], t % 2 == 0 ? 51 : 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(SessionDynamic, TopKWithACountFromOutside) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 5});
  const ValueId k = g.add_input("k", DType::int64, SymbolicShape{1});
  const NodeId top = g.add_node("TopK", {x, k}, {"values", "indices"});
  g.add_output(add(g, "Relu", {g.node(top).outputs[0]}, "positive"));
  g.add_output(g.node(top).outputs[1]);
  const Session session(g);
  const Tensor in = Tensor::from<float>({1, -2, 5, 4, -3, 0, 9, 8, 7, 6}, {2, 5});
  auto out = session.run({in, Tensor::vector<int64_t>({2})});
  EXPECT_TRUE(identical(out[0], Tensor::from<float>({5, 4, 9, 8}, {2, 2})));
  EXPECT_TRUE(identical(out[1], Tensor::from<int64_t>({2, 3, 1, 2}, {2, 2})));
  out = session.run({in, Tensor::vector<int64_t>({4})});
  EXPECT_TRUE(identical(out[0], Tensor::from<float>({5, 4, 1, 0, 9, 8, 7, 6}, {2, 4})));
}

TEST(SessionDynamic, ReshapeByComputedShape) {
  // [N, 2, 3] -> [N * 2, 3] through shape arithmetic, which is done when shapes are planned.
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 2, 3});
  const ValueId shape = add(g, "Shape", {x}, "shape");
  const ValueId n = add(g, "Gather", {shape, constant<int64_t>(g, "first", {0})}, "n");
  const ValueId rows = add(g, "Mul", {n, constant<int64_t>(g, "two", {2})}, "rows");
  const ValueId target = add(g, "Concat", {rows, constant<int64_t>(g, "three", {3})}, "target",
                             {{"axis", int64_t{0}}});
  g.add_output(add(g, "Relu", {add(g, "Reshape", {x, target}, "r")}, "y"));
  const Session session(g);
  for (const int64_t batch : {1, 4}) {
    EXPECT_EQ(session.run({Tensor(DType::float32, {batch, 2, 3})})[0].dims(), (Dims{batch * 2, 3}));
  }
}

TEST(SessionDynamic, ReshapeThatDoesNotFitNamesTheNode) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{6});
  const ValueId s = g.add_input("s", DType::int64, SymbolicShape{2});
  g.add_output(add(g, "Reshape", {x, s}, "y"));
  const Session session(g);
  const Tensor in(DType::float32, {6});
  EXPECT_EQ(session.run({in, Tensor::vector<int64_t>({2, 3})})[0].dims(), (Dims{2, 3}));
  try {
    session.run({in, Tensor::vector<int64_t>({4, 2})});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'Reshape_y'"), std::string::npos) << error.what();
  }
  EXPECT_EQ(session.run({in, Tensor::vector<int64_t>({3, 2})})[0].dims(), (Dims{3, 2}));
}

}  // namespace
}  // namespace narrow
