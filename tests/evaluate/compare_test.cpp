// SPDX-License-Identifier: Apache-2.0
// Two models side by side, with differences that are known; and the arithmetic of the benchmark.
#include "narrow/evaluate/compare.h"

#include <cmath>
#include <limits>

#include "evaluate/evaluate_testing.h"
#include "narrow/evaluate/bench.h"
#include "narrow/graph/qdq.h"

namespace narrow {
namespace {

using namespace testing;

const ValueDifference& named(const Comparison& c, const std::string& value) {
  for (const ValueDifference& d : c.layers) {
    if (d.value == value) return d;
  }
  throw Error(ErrorCode::not_found, "no layer " + value);
}
std::vector<std::string> layer_names(const Comparison& c) {
  std::vector<std::string> names;
  for (const ValueDifference& d : c.layers) names.push_back(d.value);
  return names;
}

TEST(Compare, AModelWithItselfIsIdentical) {
  const Graph g = adder(1, 3);
  const Comparison c = compare(g, g, RowData(counting(9, 3)), {.batch = 4});
  EXPECT_TRUE(c.identical);
  EXPECT_EQ(c.samples, 9);
  EXPECT_EQ(c.agreement, 100);
  EXPECT_EQ(c.cosine, 1);
  EXPECT_TRUE(std::isinf(c.sqnr_db));
  EXPECT_EQ(c.max_abs, 0);
  ASSERT_EQ(c.outputs.size(), 1u);
  EXPECT_EQ(c.outputs[0].value, "y");
  EXPECT_EQ(c.outputs[0].node, "relu");
  EXPECT_EQ(c.outputs[0].elements, 27);
  EXPECT_TRUE(c.layers.empty()) << "nothing is quantized";
}

TEST(Compare, LayerErrorsAreThoseOfTheDefinition) {
  const Graph a = adder(1, 3);
  const Graph b = adder(1.5f, 3);
  const Tensor x = counting(7, 3);
  CompareOptions options;
  options.layers = CompareOptions::Layers::all;
  const Comparison c = compare(a, b, RowData(x), options);
  EXPECT_FALSE(c.identical);
  EXPECT_EQ(c.agreement, 100) << "a shift changes no best class";
  EXPECT_EQ(layer_names(c), (std::vector<std::string>{"x", "sum", "y"}));
  double signal = 0;
  for (const float v : x.to_floats()) signal += (v + 1.0) * (v + 1.0);
  const double sqnr = 10 * std::log10(signal / (21 * 0.25));
  for (const char* value : {"sum", "y"}) {
    EXPECT_NEAR(named(c, value).sqnr_db, sqnr, 1e-9) << value;
    EXPECT_DOUBLE_EQ(named(c, value).mse, 0.25);
    EXPECT_DOUBLE_EQ(named(c, value).max_abs, 0.5);
  }
  EXPECT_NEAR(c.sqnr_db, sqnr, 1e-9);
  EXPECT_TRUE(std::isinf(named(c, "x").sqnr_db));
  EXPECT_EQ(named(c, "x").node, "");
  EXPECT_EQ(named(c, "sum").op, "Add");
}

TEST(Compare, AgreementCountsBestClasses) {
  // Columns differ by the constant row: 0 against 2.5 in column 0.
  const auto biased = [](float first) {
    Graph g;
    const ValueId x = g.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), 2});
    const ValueId c = g.add_initializer("c", Tensor::from<float>({first, 0}, {2}));
    g.add_output(g.node(g.add_node("Add", {x, c}, {"y"}, {}, "", "add")).outputs[0]);
    infer_shapes(g);
    return g;
  };
  const RowData data(Tensor::from<float>({0, 1, 0, 2, 0, 3, 0, 4, 1, 0}, {5, 2}));
  for (const int64_t batch : {0, 1, 2}) {
    const Comparison c = compare(biased(0), biased(2.5f), data, {.batch = batch});
    EXPECT_EQ(c.agreement, 60) << batch;  // 1 and 2 are overtaken by 2.5
  }
}

TEST(Compare, CopiesThatFillAFixedBatchDoNotCount) {
  const RowData data(counting(6, 3));
  CompareOptions options;
  options.layers = CompareOptions::Layers::all;
  const Comparison fixed = compare(adder(1, 3, 4), adder(1.5f, 3, 4), data, options);
  const Comparison any = compare(adder(1, 3), adder(1.5f, 3), data, options);
  EXPECT_EQ(fixed.samples, 6);
  EXPECT_EQ(named(fixed, "y").elements, 18);
  EXPECT_EQ(named(fixed, "y").sqnr_db, named(any, "y").sqnr_db);
  EXPECT_EQ(fixed.outputs[0].mse, any.outputs[0].mse);
}

/// The adder with `sum` rounded to multiples of `scale`.
Graph rounding_adder(float scale) {
  Graph g = adder(1, 3);
  QdqPlan plan;
  QuantParams grid;
  grid.scheme.is_signed = false;
  grid.scheme.symmetry = Symmetry::asymmetric;
  grid.scale = Tensor::scalar(scale);
  grid.zero_point = Tensor::scalar(int32_t{0});
  plan.activations["sum"] = grid;
  insert_qdq(g, plan);
  infer_shapes(g);
  return g;
}

TEST(Compare, QuantizedValuesAreComparedAsWhatTheyStandFor) {
  const Graph a = adder(1, 3);
  const Graph b = rounding_adder(0.75f);
  EXPECT_FALSE(dequantized_name(a, "sum").has_value());
  ASSERT_TRUE(dequantized_name(b, "sum").has_value());
  EXPECT_FALSE(dequantized_name(b, "nothing").has_value());
  const Tensor x = counting(5, 3);
  const Comparison c = compare(a, b, RowData(x));
  EXPECT_EQ(layer_names(c), std::vector<std::string>{"sum"});
  double error = 0;
  double signal = 0;
  for (const float v : x.to_floats()) {
    const double s = v + 1.0;
    const double r = std::nearbyint(s / 0.75) * 0.75;
    signal += s * s;
    error += (s - r) * (s - r);
  }
  EXPECT_NEAR(named(c, "sum").sqnr_db, 10 * std::log10(signal / error), 1e-5);
  CompareOptions none;
  none.layers = CompareOptions::Layers::none;
  EXPECT_TRUE(compare(a, b, RowData(x), none).layers.empty());
  none.also = {"x", "nothing"};
  EXPECT_EQ(layer_names(compare(a, b, RowData(x), none)), std::vector<std::string>{"x"});
}

TEST(Compare, ModelsThatDoNotMatchAreRefused) {
  const RowData data(counting(4, 3));
  expect_in(refusal([&] { compare(adder(1, 3), adder(1, 3, 0, "z"), data); }),
            "the models' inputs differ: 'x' and 'z'");
  Graph two = adder(1, 3);
  two.add_output(*two.find_value("sum"));
  expect_in(refusal([&] { compare(adder(1, 3), two, data); }), "1 and 2 outputs");
  Graph pooled = adder(1, 3);
  const NodeId flat = pooled.add_node(
      "ReduceMax",
      {pooled.outputs()[0], pooled.add_initializer("axes", Tensor::vector<int64_t>({1}))}, {"m"});
  pooled.replace_output(pooled.outputs()[0], pooled.node(flat).outputs[0]);
  infer_shapes(pooled);
  expect_in(refusal([&] { compare(adder(1, 3), pooled, data); }), "in the other");
  const RowData empty(Tensor(DType::float32, {0, 3}));
  expect_in(refusal([&] { compare(adder(1, 3), adder(1, 3), empty); }), "the data set is empty");
}

TEST(Compare, NanScoresNameTheSample) {
  std::vector<float> values = counting(9, 2).to_floats();
  values[2 * 7] = std::numeric_limits<float>::quiet_NaN();
  const RowData data(Tensor::from(values, {9, 2}));
  const Graph g = adder(1, 2);
  expect_in(refusal([&] { compare(g, g, data, {.batch = 4}); }, ErrorCode::numeric_failure),
            "sample 7: the model's output holds NaN");
}

TEST(NearestRank, IsTheSmallestValueThatEnoughReach) {
  const auto rank = [](const std::vector<double>& sorted, int percent) {
    return nearest_rank(sorted, percent);
  };
  const std::vector<double> ten{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  EXPECT_EQ(rank(ten, 50), 5);
  EXPECT_EQ(rank(ten, 51), 6);
  EXPECT_EQ(rank(ten, 90), 9);
  EXPECT_EQ(rank(ten, 91), 10);
  EXPECT_EQ(rank(ten, 100), 10);
  EXPECT_EQ(rank(ten, 0), 1);
  EXPECT_EQ(rank({1, 2, 3}, 50), 2);
  EXPECT_EQ(rank({1, 2, 3}, 90), 3);
  EXPECT_EQ(rank({7}, 50), 7);
  EXPECT_EQ(rank({7}, 90), 7);
}

TEST(Bench, CountsRunsAndOrdersTimes) {
  BenchOptions options;
  options.batch = 3;
  options.seconds = 0;
  options.min_runs = 11;
  options.threads = 1;
  const BenchResult r = bench(adder(1, 5), options);
  EXPECT_EQ(r.runs, 11);
  EXPECT_EQ(r.batch, 3);
  EXPECT_EQ(r.threads, 1);
  EXPECT_GT(r.min_us, 0);
  EXPECT_LE(r.min_us, r.median_us);
  EXPECT_LE(r.median_us, r.p90_us);
  EXPECT_LE(r.min_us, r.mean_us);
  EXPECT_GT(r.peak_rss_bytes, 1u << 20);
  EXPECT_TRUE(r.profile.empty());
  options.profile = true;
  options.max_runs = 4;
  options.min_runs = 1;
  options.seconds = 3600;
  const BenchResult bounded = bench(adder(1, 5), options);
  EXPECT_EQ(bounded.runs, 4);
  ASSERT_FALSE(bounded.profile.empty());
  for (const NodeProfile& node : bounded.profile) EXPECT_EQ(node.runs, 4) << "no warm-up runs";
  options.seconds = 0;
  options.min_runs = 0;
  EXPECT_EQ(bench(adder(1, 5), options).runs, 1) << "at least one";
  options.max_runs = 0;
  expect_in(refusal([&] { bench(adder(1, 5), options); }), "at least one run");
}

TEST(Bench, HashesTellResultsApart) {
  BenchOptions options;
  options.seconds = 0;
  options.min_runs = 1;
  const std::string first = bench(adder(1, 5), options).output_hash;
  EXPECT_EQ(first.size(), 16u);
  EXPECT_EQ(bench(adder(1, 5), options).output_hash, first);
  EXPECT_NE(bench(adder(2, 5), options).output_hash, first);
  options.seed = 2;
  EXPECT_NE(bench(adder(1, 5), options).output_hash, first);
  const Tensor t = counting(2, 3);
  EXPECT_NE(hash_tensors({t}), hash_tensors({t.reshaped({3, 2})}));
  EXPECT_NE(hash_tensors({t}), hash_tensors({t, t}));
  EXPECT_NE(hash_tensors({Tensor::scalar(0.0f)}), hash_tensors({Tensor::scalar(int32_t{0})}));
}

TEST(Bench, InputsFollowTheDeclaration) {
  Graph g = adder(1, 4);
  g.add_input("ids", DType::int64, SymbolicShape{Dim::symbol("N"), 3});
  g.add_input("mask", DType::boolean, SymbolicShape{2});
  const auto inputs = random_inputs(g, 2, 5);
  ASSERT_EQ(inputs.size(), 3u);
  EXPECT_EQ(inputs.at("x").dims(), (Dims{2, 4}));
  for (const float v : inputs.at("x").to_floats()) {
    EXPECT_GE(v, 0);
    EXPECT_LT(v, 1);
  }
  for (const int64_t v : inputs.at("ids").to_ints()) {
    EXPECT_GE(v, 0);
    EXPECT_LE(v, 255);
  }
  EXPECT_EQ(hash_tensors({random_inputs(g, 2, 5).at("x")}), hash_tensors({inputs.at("x")}));
  expect_in(refusal([&] { random_inputs(g, 3, 5); }),
            "input 'mask' has a fixed batch of 2, 3 is asked");
  Graph open;
  open.add_input("x", DType::float32, SymbolicShape{Dim::symbol("N"), Dim::symbol("L")});
  expect_in(refusal([&] { random_inputs(open, 1, 5); }), "dimension 1 is not known");
  Graph unranked;
  unranked.add_input("x", DType::float32, std::nullopt);
  expect_in(refusal([&] { random_inputs(unranked, 1, 5); }), "has no declared shape");
  expect_in(refusal([&] { bench(adder(1, 4), std::map<std::string, Tensor>{}, {}); }),
            "nothing is given for input 'x'");
}

}  // namespace
}  // namespace narrow
