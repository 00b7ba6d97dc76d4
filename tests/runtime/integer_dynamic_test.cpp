// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "integer_rig.h"
#include "narrow/graph/conv_shape.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

using testing::NodeRig;
using testing::random_codes;
using testing::random_floats;

NodeRig gemm_rig(const Dims& x, int64_t n, bool trans_b, DType w_type, const char* granularity,
                 bool zero, bool bias) {
  NodeRig rig("narrow", "DynamicQGemm");
  const int64_t k = x.back();
  rig.attribute("granularity", std::string(granularity));
  if (trans_b) rig.attribute("transB", int64_t{1});
  rig.activation(random_floats(x, 3, -1.5f, 4));
  rig.constant(random_codes(w_type, trans_b ? Dims{n, k} : Dims{k, n}, 4));
  rig.constant(n % 2 == 0 ? random_floats({n}, 5, 0.001f, 0.1f) : Tensor::scalar(0.03f));
  if (zero) {
    rig.constant(random_codes(w_type, {n}, 6));
  } else {
    rig.absent();
  }
  if (bias) rig.constant(random_floats({n}, 7));
  Dims y = x;
  y.back() = n;
  rig.output(DType::float32, y);
  return rig;
}

TEST(DynamicGemmStep, EqualsTheReferenceBitForBit) {
  for (const char* granularity : {"per_tensor", "per_sample"}) {
    for (const Dims& x : {Dims{1, 20}, Dims{5, 33}, Dims{2, 3, 64}, Dims{17}}) {
      for (const int64_t n : {1, 10, 33}) {
        for (const DType w : {DType::int8, DType::uint8, DType::int4, DType::uint4}) {
          gemm_rig(x, n, n == 10, w, granularity, n == 33, n != 1).check();
        }
      }
    }
  }
}

TEST(DynamicGemmStep, OddRanges) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<std::vector<float>> rows = {
      {0, 0, 0, 0},          {1, 2, 3, 4},    {-1, -2, -3, -4},        {1e-42f, 0, 0, -1e-42f},
      {3e38f, -3e37f, 0, 1}, {NAN, 1, -1, 0}, {-0.0f, 0.0f, -0.0f, 0}, {1e30f, 1, 1, 1}};
  for (const std::vector<float>& row : rows) {
    NodeRig rig("narrow", "DynamicQGemm");
    rig.activation(Tensor::from(row, {1, 4}));
    rig.constant(Tensor::from<int8_t>({1, -2, 3, -4}, {4, 1})).constant(Tensor::scalar(0.5f));
    rig.output(DType::float32, {1, 1}).check();
  }
  // Infinity leaves nothing to compute with, but must not crash.
  NodeRig rig("narrow", "DynamicQGemm");
  rig.activation(Tensor::from<float>({inf, 1, -inf, 0}, {1, 4}));
  rig.constant(Tensor::from<int8_t>({1, -2, 3, -4}, {4, 1})).constant(Tensor::scalar(0.5f));
  rig.output(DType::float32, {1, 1});
  for (const OpImpl* row : rig.rows()) {
    if (rig.refusal(row->name).empty()) rig.run(row->name);
  }
}

TEST(DynamicGemmStep, ByHand) {
  // Range [-51, 204]: scale 1, zero_point 51, so the codes are exact.
  NodeRig rig("narrow", "DynamicQGemm");
  rig.activation(Tensor::from<float>({-51, 204, 3, 0}, {1, 4}));
  rig.constant(Tensor::from<int8_t>({1, 2, 3, 4}, {4, 1})).constant(Tensor::scalar(0.5f)).absent();
  rig.constant(Tensor::from<float>({100}, {1})).output(DType::float32, {1, 1});
  EXPECT_EQ(rig.run("reference").item<float>(), 0.5f * (-51 + 408 + 9) + 100);
  rig.check();
}

TEST(DynamicGemmStep, ResultsPerRowDoNotDependOnNeighbours) {
  NodeRig all = gemm_rig({6, 40}, 12, false, DType::int8, "per_sample", false, true);
  const Tensor y = all.run("scalar:igemm");
  const Tensor x = random_floats({6, 40}, 3, -1.5f, 4);
  for (int64_t i = 0; i < 6; ++i) {
    Tensor row(DType::float32, {1, 40});
    std::copy_n(x.data<float>().begin() + i * 40, 40, row.mutable_data<float>().begin());
    NodeRig one("narrow", "DynamicQGemm");
    one.attribute("granularity", std::string("per_sample")).activation(row);
    one.constant(random_codes(DType::int8, {40, 12}, 4));
    one.constant(random_floats({12}, 5, 0.001f, 0.1f)).absent();
    one.constant(random_floats({12}, 7)).output(DType::float32, {1, 12});
    const Tensor got = one.run("scalar:igemm");
    for (int64_t j = 0; j < 12; ++j) {
      EXPECT_EQ(got.data<float>()[j], y.data<float>()[i * 12 + j]) << i;
    }
  }
}

struct ConvCase {
  Dims x;
  Dims w;
  int64_t group = 1;
  bool zero = false;
};

TEST(DynamicConvStep, EqualsTheReferenceBitForBit) {
  const std::vector<ConvCase> cases = {{{2, 3, 7, 6}, {8, 3, 3, 3}},
                                       {{3, 8, 5, 5}, {17, 8, 1, 1}, 1, true},
                                       {{2, 6, 7, 7}, {12, 3, 3, 3}, 2, true},
                                       {{2, 20, 7, 7}, {20, 1, 3, 3}, 20},
                                       {{2, 20, 7, 7}, {20, 1, 3, 3}, 20, true}};
  for (const ConvCase& c : cases) {
    for (const char* granularity : {"per_tensor", "per_sample"}) {
      for (const DType w : {DType::int8, DType::uint8}) {
        NodeRig rig("narrow", "DynamicQConv");
        rig.attribute("granularity", std::string(granularity)).attribute("group", c.group);
        rig.attribute("pads", std::vector<int64_t>{1, 1, 1, 1});
        Node shape;
        shape.attributes = {{"pads", std::vector<int64_t>{1, 1, 1, 1}}, {"group", c.group}};
        Dims y = conv_geometry(shape, c.x, c.w).output;
        y.insert(y.begin(), {c.x[0], c.w[0]});
        rig.activation(random_floats(c.x, 1, -2, 3)).constant(random_codes(w, c.w, 2));
        rig.constant(random_floats({c.w[0]}, 3, 0.001f, 0.1f));
        if (c.zero) {
          rig.constant(random_codes(w, {c.w[0]}, 4));
        } else {
          rig.absent();
        }
        rig.constant(random_floats({c.w[0]}, 5)).output(DType::float32, y);
        rig.check();
      }
    }
  }
}

TEST(DynamicConvStep, CountsAsInteger) {
  NodeRig rig = gemm_rig({2, 3, 20}, 10, false, DType::int8, "per_tensor", false, false);
  const auto step = rig.step("scalar:igemm");
  const std::vector<Dims> in{{2, 3, 20}};
  const std::vector<Dims> out{{2, 3, 10}};
  EXPECT_EQ(step->macs(in, out), 2 * 3 * 20 * 10);
  EXPECT_TRUE(step->integer_macs());
}

/// x -> products with `count` matrices of different widths -> Neg -> outputs.
Graph siblings(int count, const char* granularity, bool bias) {
  Graph graph;
  const ValueId x = graph.add_input("x", DType::float32, SymbolicShape{Dim::symbol("n"), 20});
  for (int i = 0; i < count; ++i) {
    const std::string name = "p" + std::to_string(i);
    const int64_t n = 5 + 7 * i;
    std::vector<ValueId> inputs{
        x, graph.add_initializer(name + ".w", random_codes(DType::int8, {20, n}, 10 + i)),
        graph.add_initializer(name + ".s", i == 1 ? Tensor::scalar(0.02f)
                                                  : random_floats({n}, 20 + i, 0.001f, 0.1f))};
    if (bias) {
      inputs.push_back(kNoId);
      inputs.push_back(graph.add_initializer(name + ".b", random_floats({n}, 30 + i)));
    }
    const NodeId node = graph.add_node("DynamicQGemm", inputs, {name},
                                       {{"granularity", std::string(granularity)}}, "narrow", name);
    const NodeId minus = graph.add_node("Neg", {graph.node(node).outputs[0]}, {name + ".y"});
    graph.add_output(graph.node(minus).outputs[0]);
  }
  return graph;
}

int64_t count_products(const Session& session) {
  int64_t count = 0;
  for (const NodeId id : session.graph().nodes()) {
    count += session.graph().node(id).op == "DynamicQGemm" ? 1 : 0;
  }
  return count;
}

TEST(DynamicGemmStep, ProductsOfOneInputRunAsOne) {
  const Tensor x = random_floats({6, 20}, 3, -1.5f, 4);
  for (const char* granularity : {"per_tensor", "per_sample"}) {
    for (const bool bias : {false, true}) {
      const Session merged(siblings(3, granularity, bias));
      SessionOptions apart_options;
      apart_options.optimize = false;
      const Session apart(siblings(3, granularity, bias), apart_options);
      EXPECT_EQ(count_products(merged), 1);
      EXPECT_EQ(count_products(apart), 3);
      const std::vector<Tensor> got = merged.run({x});
      const std::vector<Tensor> wanted = apart.run({x});
      for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(got[i], wanted[i])) << i;
    }
  }
}

/// DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul, as files have it.
Graph dynamic_file_graph() {
  Graph graph;
  const ValueId x = graph.add_input("x", DType::float32, SymbolicShape{Dim::symbol("n"), 8});
  const NodeId q = graph.add_node("DynamicQuantizeLinear", {x}, {"q", "s", "z"});
  const std::vector<ValueId> codes = graph.node(q).outputs;
  const ValueId w = graph.add_initializer("w", random_codes(DType::int8, {8, 4}, 5));
  const auto add = [&](const char* op, std::vector<ValueId> inputs, const char* name,
                       Attributes attributes = {}) {
    return graph.node(graph.add_node(op, std::move(inputs), {name}, std::move(attributes)))
        .outputs[0];
  };
  const ValueId sums = add("MatMulInteger", {codes[0], w, codes[2]}, "sums");
  const ValueId real = add("Cast", {sums}, "real", {{"to", int64_t{1}}});
  const ValueId ws = graph.add_initializer("ws", Tensor::scalar(0.01f));
  graph.add_output(add("Mul", {real, add("Mul", {codes[1], ws}, "scale")}, "y"));
  return graph;
}

TEST(DynamicGemmStep, RangesOfSamplesOnRequest) {
  Tensor both = random_floats({2, 8}, 9, -1, 1);
  for (int64_t i = 8; i < 16; ++i) both.mutable_data<float>()[i] *= 40;  // widens the common range
  Tensor first(DType::float32, {1, 8});
  std::copy_n(both.data<float>().begin(), 8, first.mutable_data<float>().begin());
  for (const bool samples : {false, true}) {
    SessionOptions options;
    options.sample_ranges = samples;
    const Session session(dynamic_file_graph(), options);
    EXPECT_EQ(count_products(session), 1);
    const Tensor alone = session.run({first}).front();
    const Tensor together = session.run({both}).front();
    const bool same = std::equal(alone.data<float>().begin(), alone.data<float>().end(),
                                 together.data<float>().begin());
    EXPECT_EQ(same, samples);
  }
}

}  // namespace
}  // namespace narrow
