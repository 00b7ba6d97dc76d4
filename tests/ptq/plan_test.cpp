// SPDX-License-Identifier: Apache-2.0
// From assignment and statistics to a graph: ranges, codes, proofs, and the written forms (QDQ,
// dynamic, few bits, half precision), which must run and stay close to the float model.
#include "narrow/ptq/plan.h"

#include <cmath>
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

Statistics statistics_of(const std::map<std::string, Tensor>& values) {
  Statistics s;
  for (const auto& [name, tensor] : values) {
    s.values[name].observe(tensor.data<float>());
    s.values[name].end_sample();
  }
  return s;
}

Assignment of_sources(std::vector<std::string> sources) {
  Assignment a;
  Scheme scheme;
  scheme.is_signed = false;
  scheme.symmetry = Symmetry::asymmetric;
  for (const std::string& name : sources) a.activations[name] = {scheme, sources};
  return a;
}

TEST(ActivationRanges, SharedGridsPoolTheirSources) {
  const Statistics s = statistics_of(
      {{"a", Tensor::vector<float>({-1, 0, 2})}, {"b", Tensor::vector<float>({0, 5, 1})}});
  const auto ranges = activation_ranges(of_sources({"a", "b"}), s, {});
  EXPECT_EQ(ranges.at("a"), (Range{-1, 5}));
  EXPECT_EQ(ranges.at("b"), ranges.at("a"));
}

TEST(ActivationRanges, OverridesCount) {
  Statistics s =
      statistics_of({{"a", Tensor::vector<float>({-1, 2})}, {"b", Tensor::vector<float>({0, 5})}});
  s.overrides["a"] = {-9, 1};
  EXPECT_EQ(activation_ranges(of_sources({"a"}), s, {}).at("a"), (Range{-9, 1}));
  EXPECT_EQ(activation_ranges(of_sources({"a", "b"}), s, {}).at("b"), (Range{-9, 5}));
}

TEST(ActivationRanges, MissingAndEmptyStatisticsAreErrors) {
  const Statistics s = statistics_of({{"a", Tensor::vector<float>({-1, 2})}});
  expect_in(refusal([&] { activation_ranges(of_sources({"b"}), s, {}); }, ErrorCode::not_found),
            "b");
  expect_in(refusal(
                [&] {
                  activation_ranges(of_sources({"a", "b"}), s, {});
                },
                ErrorCode::not_found),
            "no statistics of value 'b'");
  const Statistics bad =
      statistics_of({{"a", Tensor::vector<float>({std::numeric_limits<float>::quiet_NaN()})}});
  EXPECT_NE(
      refusal([&] { activation_ranges(of_sources({"a"}), bad, {}); }, ErrorCode::numeric_failure),
      "accepted");
}

TEST(MakePlan, CodesScalesAndBiasesFitTogether) {
  SmallNet net = classifier();
  Assignment a = assign(net.g, resolve(options_for("narrow")));
  const auto ranges = activation_ranges(a, observe(net.g, a, images()), {});
  const QuantizationPlan plan = make_plan(net.g, a, ranges);
  ASSERT_EQ(plan.layers.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const AssignedLayer& layer = a.layers[i];
    SCOPED_TRACE(layer.node);
    EXPECT_EQ(plan.layers[i].node, layer.node);
    EXPECT_GT(plan.layers[i].weight_sqnr_db, 38);  // 8 bits per channel of normal weights
    const QuantizedTensor& w = plan.qdq.weights.at(layer.weights);
    EXPECT_EQ(w.codes.dtype(), DType::int8);
    EXPECT_EQ(w.params.scale.elements(), layer.channels);
    const QuantizedTensor& b = plan.qdq.biases.at(layer.bias);
    const float sx = plan.qdq.activations.at(layer.input).scale.to_floats()[0];
    const auto sw = w.params.scale.to_floats();
    const auto exact = constant_of(net.g, layer.bias).to_floats();
    const auto codes = b.codes.to_ints();
    for (size_t c = 0; c < codes.size(); ++c) {
      const double step = static_cast<double>(sx) * static_cast<double>(sw[c]);
      EXPECT_NEAR(static_cast<double>(codes[c]) * step, static_cast<double>(exact[c]),
                  0.5001 * step);
    }
  }
  const auto& grids = plan.qdq.activations;
  EXPECT_TRUE(identical(grids.at("pool_y").scale, grids.at("relu1_y").scale));
  EXPECT_TRUE(identical(grids.at("flat_y").zero_point, grids.at("relu2_y").zero_point));
  EXPECT_FALSE(identical(grids.at("x").scale, grids.at("relu1_y").scale));
}

TEST(MakePlan, TargetsWithFloatBiasGetNoBiasCodes) {
  SmallNet net = classifier();
  Assignment a = assign(net.g, resolve(options_for("openvino")));
  const auto ranges = activation_ranges(a, observe(net.g, a, images()), {});
  EXPECT_TRUE(make_plan(net.g, a, ranges).qdq.biases.empty());
}

TEST(MakePlan, NotFiniteWeightsNameNodeAndTensor) {
  SmallNet net = classifier();
  Assignment a = assign(net.g, resolve(options_for("narrow")));
  const auto ranges = activation_ranges(a, observe(net.g, a, images()), {});
  Tensor w = constant_of(net.g, "conv2_w").clone();
  w.mutable_data<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  net.g.set_constant(*net.g.find_value("conv2_w"), w);
  try {
    make_plan(net.g, a, ranges);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::numeric_failure);
    expect_in(e.what(), "conv2_w");
    expect_in(e.what(), "node 'conv2'");
  }
}

TEST(MakePlan, AccumulatorsThatCouldOverflowAreRefused) {
  constexpr int64_t kInputs = 70000;  // 255 * 127 * 70000 is past 2^31
  SmallNet n;
  const ValueId x = n.input({1, kInputs});
  const ValueId w = n.constant("w", Tensor::from(std::vector<float>(kInputs, 1), {1, kInputs}));
  n.output(n.op("Gemm", "wide", {x, w}, {{"transB", int64_t{1}}}));
  n.infer();
  Assignment a = assign(n.g, resolve(options_for("narrow")));
  const std::map<std::string, Range> ranges{{"x", {0, 1}}};
  const std::string text = refusal([&] { make_plan(n.g, a, ranges); }, ErrorCode::numeric_failure);
  expect_in(text, "node 'wide'");
  expect_in(text, "int32 could overflow");
  // 6 bits are proven.
  SmallNet m;
  const ValueId v = m.input({1, kInputs});
  m.output(m.op("Gemm", "wide",
                {v, m.constant("w", Tensor::from(std::vector<float>(kInputs, 1), {1, kInputs}))},
                {{"transB", int64_t{1}}}));
  m.infer();
  QuantizeOptions narrower = options_for("narrow");
  narrower.weights = number_type_from_string("int6");
  Assignment b = assign(m.g, resolve(narrower));
  EXPECT_EQ(make_plan(m.g, b, ranges).layers.size(), 1u);
}

TEST(ApplyPlan, EveryTargetsFileStaysCloseToTheModel) {
  for (const TargetProfile& target : all_targets()) {
    SCOPED_TRACE(target.name);
    const SmallNet net = classifier();
    const Graph q = quantized(net.g, options_for(target.name), images());
    EXPECT_EQ(count(q, "Conv"), 2u);
    EXPECT_FALSE(q.find_value("conv1_w").has_value()) << "the float weights are gone";
    EXPECT_EQ(q.value(q.outputs()[0]).name, "fc_y");
    // 8 bits: about 30 dB behind three layers.
    EXPECT_GT(sqnr_db(run(net.g, images())[0], run(q, images())[0]), 25);
  }
}

TEST(ApplyPlan, ConstantsOfElementwiseOperatorsAreQuantized) {
  SmallNet n;
  const ValueId x = n.input({1, 3, 8, 8});
  const ValueId a = n.conv("conv1", x, 3, 4);
  const ValueId c = n.constant("offsets", random_tensor({1, 4, 1, 1}, 9));
  n.output(n.conv("conv2", n.op("Add", "add", {a, c}), 4, 4));
  n.infer();
  SmallNet copy = n;
  const Assignment assigned = assign(copy.g, resolve(options_for("narrow")));
  ASSERT_EQ(assigned.constants.size(), 1u);
  EXPECT_EQ(assigned.constants.begin()->first, "offsets");
  const Graph q = quantized(n.g, options_for("narrow"), images());
  EXPECT_GT(sqnr_db(run(n.g, images())[0], run(q, images())[0]), 25);
}

/// conv -> Relu -> reshape -> MatMul+Add and Gemm [K, N], side by side on one value.
SmallNet products() {
  SmallNet n;
  const ValueId x = n.input({1, 3, 8, 8});
  const ValueId a = n.op("Relu", "relu", {n.conv("conv", x, 3, 4)});
  const ValueId flat = n.op("Flatten", "flat", {a});
  const ValueId product =
      n.op("MatMul", "mm", {flat, n.constant("mm_w", random_tensor({144, 6}, 11, 0.2f))});
  n.output(n.op("Add", "mm_add", {product, n.constant("mm_b", random_tensor({6}, 12))}));
  n.output(n.gemm("fc", flat, 144, 6, true, false));
  n.output(n.gemm("fct", flat, 144, 6, false, true));
  n.infer();
  return n;
}

TEST(ApplyPlan, DynamicIsStandardOperatorsThatShareTheirInput) {
  const SmallNet net = products();
  const Graph q = quantized(net.g, options_for("narrow", Mode::dynamic), images());
  EXPECT_EQ(count(q, "ConvInteger"), 1u);
  EXPECT_EQ(count(q, "MatMulInteger"), 3u);
  EXPECT_EQ(count(q, "DynamicQuantizeLinear"), 2u) << "one for x, one for the flat value";
  EXPECT_EQ(count(q, "Conv") + count(q, "Gemm") + count(q, "MatMul"), 0u);
  const auto before = run(net.g, images());
  const auto after = run(q, images());
  ASSERT_EQ(after.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(q.value(q.outputs()[i]).name, net.g.value(net.g.outputs()[i]).name);
    EXPECT_GT(sqnr_db(before[i], after[i]), 30) << i;
  }
}

TEST(ApplyPlan, DynamicOfFewerBitsIsStoredInEight) {
  const SmallNet net = products();
  QuantizeOptions o = options_for("narrow", Mode::dynamic);
  o.weights = number_type_from_string("uint4");  // with zero points
  const Graph q = quantized(net.g, o, images());
  for (const NodeId id : q.nodes()) {
    if (!q.node(id).is("ConvInteger") && !q.node(id).is("MatMulInteger")) continue;
    EXPECT_EQ(q.value(q.node(id).inputs[1]).dtype, DType::uint8);
    EXPECT_NE(q.node(id).input(3), kNoId);
  }
  const auto before = run(net.g, images());
  const auto after = run(q, images());
  for (size_t i = 0; i < 3; ++i) EXPECT_GT(sqnr_db(before[i], after[i]), 12) << i;
}

TEST(ApplyPlan, WeightOnlyChangesTheWeightsAlone) {
  struct Case {
    const char* type;
    double sqnr;
  };
  for (const auto& [type, sqnr] :
       {Case{"int8", 38}, Case{"int4", 16}, Case{"uint4", 16}, Case{"int3", 10}}) {
    SCOPED_TRACE(type);
    const SmallNet net = products();
    QuantizeOptions o = options_for("narrow", Mode::weight_only);
    o.weights = number_type_from_string(type);
    o.group_size = 24;
    const Graph q = quantized(net.g, o, images());
    EXPECT_EQ(count(q, "QuantizeLinear"), 0u);
    // Exactly the float network with the weights that the codes stand for.
    SmallNet rounded = products();
    Assignment a = assign(rounded.g, resolve(o));
    const QuantizationPlan plan = make_plan(rounded.g, a, {});
    for (const auto& [name, w] : plan.qdq.weights) {
      rounded.g.set_constant(*rounded.g.find_value(name), dequantize(w.codes, w.params));
    }
    const auto expected = run(rounded.g, images());
    const auto got = run(q, images());
    const auto exact = run(net.g, images());
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_GT(sqnr_db(expected[i], got[i]), 100) << i;
      EXPECT_GT(sqnr_db(exact[i], got[i]), sqnr) << i;
    }
  }
}

TEST(ApplyPlan, HalfPrecisionWeightsAreCasts) {
  const SmallNet net = products();
  QuantizeOptions o = options_for("narrow", Mode::weight_only);
  o.weights = number_type_from_string("float16");
  const Graph q = quantized(net.g, o, images());
  EXPECT_EQ(count(q, "Cast"), 4u);
  for (const NodeId id : q.nodes()) {
    if (q.node(id).is("Cast")) {
      EXPECT_EQ(q.value(q.node(id).inputs[0]).dtype, DType::float16);
    }
  }
  const auto before = run(net.g, images());
  const auto after = run(q, images());
  for (size_t i = 0; i < 3; ++i) EXPECT_GT(sqnr_db(before[i], after[i]), 60) << i;
}

TEST(ApplyPlan, HalfPrecisionRefusesWhatBecomesInfinite) {
  QuantizeOptions o = options_for("narrow", Mode::weight_only);
  o.weights = number_type_from_string("float16");
  for (const auto& [value, text] :
       {std::pair{70000.0f, "weights 'one_w': element 1 is 70000, past float16"},
        std::pair{std::numeric_limits<float>::infinity(), "weights 'one_w': element 1 is inf"},
        std::pair{std::numeric_limits<float>::quiet_NaN(), "weights 'one_w': element 1 is nan"}}) {
    SmallNet net;
    net.output(net.gemm("one", net.input({1, 2}), 2, 2));
    net.infer();
    net.g.set_constant(*net.g.find_value("one_w"),
                       Tensor::from(std::vector<float>{1, value, 3, 65504}, {2, 2}));
    Assignment a = assign(net.g, resolve(o));
    const QuantizationPlan plan = make_plan(net.g, a, {});
    expect_in(refusal([&] { apply_plan(net.g, a, plan); }, ErrorCode::numeric_failure), text);
  }
}

}  // namespace
}  // namespace narrow
