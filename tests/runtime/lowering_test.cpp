// SPDX-License-Identifier: Apache-2.0
// A QDQ graph means the same lowered to integers and run as written: equal up to one step where the
// float execution rounds at a tie, and exactly what the integer definition says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "narrow/core/cpu.h"
#include "narrow/core/rng.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/op_table.h"
#include "narrow/quant/quantize.h"
#include "narrow/quant/requantize.h"
#include "narrow/runtime/session.h"

namespace narrow {
namespace {

struct Net {
  Graph graph;
  QdqPlan plan;
  Rng rng{3};

  Tensor random(Dims dims, double spread = 1) {
    Tensor t(DType::float32, std::move(dims));
    for (float& v : t.mutable_data<float>()) v = static_cast<float>(spread * rng.normal());
    return t;
  }
  void activation(const std::string& name, float rmin, float rmax, bool is_signed = false,
                  int bits = 8) {
    Scheme scheme;
    scheme.bits = bits;
    scheme.is_signed = is_signed;
    scheme.symmetry = Symmetry::asymmetric;
    const ScaleZeroPoint p = choose_params(rmin, rmax, scheme);
    QuantParams q;
    q.scheme = scheme;
    q.scale = Tensor::scalar(p.scale);
    q.zero_point = Tensor::scalar(p.zero_point);
    plan.activations[name] = q;
  }
  void weights(const std::string& name, int64_t axis) {
    Scheme scheme;
    scheme.granularity = Granularity::per_axis;
    scheme.axis = axis;
    const Tensor& w = graph.value(*graph.find_value(name)).constant;
    QuantizedTensor q;
    q.params = minmax_params(w, scheme);
    q.codes = quantize(w, q.params);
    plan.weights[name] = q;
  }
};

/// conv 3-8 (relu) -> maxpool -> conv 8-8 + residual (relu) -> global average -> fc
/// Values between the layers have `bits`.
Net residual_net(int bits = 8) {
  Net net;
  Graph& g = net.graph;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 3, 12, 12});
  const auto conv = [&](ValueId in, int64_t c, int64_t m, const std::string& name) {
    const ValueId w = g.add_initializer(name + "_w", net.random({m, c, 3, 3}, 0.2));
    const ValueId b = g.add_initializer(name + "_b", net.random({m}, 0.2));
    const NodeId n = g.add_node(
        "Conv", {in, w, b}, {name},
        {{"kernel_shape", std::vector<int64_t>{3, 3}}, {"pads", std::vector<int64_t>{1, 1, 1, 1}}},
        "", name);
    return g.node(n).outputs[0];
  };
  const auto unary = [&](const char* op, ValueId in, const std::string& name, Attributes a = {}) {
    return g.node(g.add_node(op, {in}, {name}, std::move(a))).outputs[0];
  };
  const ValueId r1 = unary("Relu", conv(x, 3, 8, "c1"), "r1");
  const ValueId p1 = unary(
      "MaxPool", r1, "p1",
      {{"kernel_shape", std::vector<int64_t>{2, 2}}, {"strides", std::vector<int64_t>{2, 2}}});
  const ValueId c2 = conv(p1, 8, 8, "c2");
  const ValueId sum = g.node(g.add_node("Add", {c2, p1}, {"sum"})).outputs[0];
  const ValueId r2 = unary("Relu", sum, "r2");
  const ValueId pool = unary("GlobalAveragePool", r2, "pool");
  const ValueId flat = unary("Flatten", pool, "flat");
  const ValueId w = g.add_initializer("fc_w", net.random({10, 8}, 0.3));
  const ValueId b = g.add_initializer("fc_b", net.random({10}, 0.3));
  const NodeId fc = g.add_node("Gemm", {flat, w, b}, {"y"}, {{"transB", int64_t{1}}}, "", "fc");
  g.add_output(g.node(fc).outputs[0]);
  net.activation("x", -2, 2);
  net.activation("r1", 0, 2, false, bits);
  net.activation("p1", 0, 2, false, bits);
  net.activation("c2", -3, 3, true, bits);
  net.activation("r2", 0, 4, false, bits);
  net.activation("pool", 0, 3, false, bits);
  net.activation("flat", 0, 3, false, bits);
  net.activation("y", -3, 3, true);
  for (const char* name : {"c1_w", "c2_w", "fc_w"}) net.weights(name, 0);
  return net;
}

Tensor input() {
  Rng rng(11);
  Tensor x(DType::float32, {3, 3, 12, 12});
  for (float& v : x.mutable_data<float>()) v = static_cast<float>(rng.normal());
  return x;
}

Graph quantized(Net& net) {
  insert_qdq(net.graph, net.plan);
  infer_shapes(net.graph);
  return net.graph;
}

Tensor run(const Graph& graph, SessionOptions options) {
  return Session(graph, std::move(options)).run({input()})[0];
}

TEST(Lowering, IntegersAndTheGraphAsWrittenAgreeWithinOneStep) {
  Net net = residual_net();
  const Graph graph = quantized(net);
  const Tensor integer = run(graph, {});
  const Tensor real = run(graph, {.lower = false});
  const float step = net.plan.activations["y"].scale.item<float>();
  const auto a = integer.data<float>();
  const auto b = real.data<float>();
  ASSERT_EQ(a.size(), 30u);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_LE(std::abs(a[i] - b[i]), 1.01f * step) << i;
}

TEST(Lowering, EveryInstructionSetAndThreadCountGivesTheSameIntegers) {
  Net net = residual_net();
  const Graph graph = quantized(net);
  const Tensor expected = run(graph, {.threads = 1, .reference = true});
  const Isa before = active_isa();
  for (const Isa isa : supported_isas()) {
    set_isa(isa);
    for (const int threads : {1, 2}) {
      EXPECT_TRUE(identical(run(graph, {.threads = threads}), expected))
          << to_string(isa) << ", " << threads << " threads";
    }
  }
  set_isa(before);
}

TEST(Lowering, EveryMultiplyAddOfTheNetIsInteger) {
  Net net = residual_net();
  const Session session(quantized(net));
  const Session::MacCount macs = session.count_macs({{1, 3, 12, 12}});
  const int64_t expected = 3 * 8 * 9 * 144 + 8 * 8 * 9 * 36 + 80;
  EXPECT_EQ(macs.total, expected);
  EXPECT_EQ(macs.integer, expected);
  EXPECT_TRUE(session.lowering().refused.empty());
}

/// Codes of 2 and 4 bits have types of their own in a file; those of 3 and 6 are a Clip there.
TEST(Lowering, ActivationsOfFewBitsAreIntegersToo) {
  for (const int bits : {2, 3, 4, 6}) {
    Net net = residual_net(bits);
    const Graph graph = quantized(net);
    const Session session(graph);
    const Session::MacCount macs = session.count_macs({{1, 3, 12, 12}});
    EXPECT_EQ(macs.integer, macs.total) << bits;
    EXPECT_TRUE(session.lowering().refused.empty()) << bits;
    const Tensor integer = session.run({input()})[0];
    EXPECT_TRUE(identical(integer, run(graph, {.reference = true}))) << bits;
    // A value at a tie may fall on the next code between the layers.
    const Tensor real = run(graph, {.lower = false});
    const float step = net.plan.activations["r2"].scale.item<float>();
    for (size_t i = 0; i < 30; ++i) {
      EXPECT_LE(std::abs(integer.data<float>()[i] - real.data<float>()[i]), step) << bits;
    }
  }
}

TEST(Lowering, AConvolutionIsExactlyItsDefinition) {
  // One 1x1 convolution of one pixel: the definition by hand.
  Net net;
  Graph& g = net.graph;
  const ValueId x = g.add_input("x", DType::float32, SymbolicShape{1, 2, 1, 1});
  const ValueId w = g.add_initializer("w", Tensor::from<float>({1.0f, -0.5f}, {1, 2, 1, 1}));
  const ValueId b = g.add_initializer("b", Tensor::from<float>({0.3f}, {1}));
  const NodeId n = g.add_node("Conv", {x, w, b}, {"y"});
  g.add_output(g.node(n).outputs[0]);
  net.activation("x", -1, 1);
  net.activation("y", -2, 2);
  net.weights("w", 0);
  const QuantParams& px = net.plan.activations["x"];
  const QuantParams& py = net.plan.activations["y"];
  const QuantizedTensor& qw = net.plan.weights["w"];
  const float s_x = px.scale.item<float>();
  const float s_w = qw.params.scale.to_floats()[0];
  const float s_y = py.scale.item<float>();
  const auto z_x = static_cast<int32_t>(px.zero_point.to_ints()[0]);
  const auto z_y = static_cast<int32_t>(py.zero_point.to_ints()[0]);
  const auto w_codes = qw.codes.to_ints();
  insert_qdq(g, net.plan);
  infer_shapes(g);
  const Session session(g);
  for (const auto& [first, second] : {std::pair(0.7f, -0.2f), std::pair(-1.0f, 1.0f)}) {
    const Tensor y = session.run({Tensor::from<float>({first, second}, {1, 2, 1, 1})})[0];
    const auto code = [&](float v) {
      return static_cast<int32_t>(
          std::clamp(std::nearbyint(v / s_x) + static_cast<float>(z_x), 0.0f, 255.0f));
    };
    const auto acc =
        static_cast<int32_t>((code(first) - z_x) * w_codes[0] + (code(second) - z_x) * w_codes[1] +
                             *quantize_bias(0.3f, s_x, s_w));
    const int32_t expected = requantize(acc, requant_multiplier(s_x, s_w, s_y), z_y, 0, 255);
    EXPECT_EQ(y.item<float>(), s_y * static_cast<float>(expected - z_y));
  }
}

}  // namespace
}  // namespace narrow
