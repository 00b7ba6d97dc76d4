// SPDX-License-Identifier: Apache-2.0
// Equalization: the float function stays, channels of small range get more codes, and values that
// others read are left alone.
#include "narrow/ptq/equalize/equalize.h"

#include <cmath>

#include "ptq/ptq_testing.h"

namespace narrow {
namespace {

using namespace testing;
using Names = std::vector<std::string>;

/// Makes channels of a layer's output very unequal: channel c of its weights and bias is divided by
/// 1, 4, 16, 64, 1, ...; `reader` takes the factor back, so that they still matter.
void unbalance(SmallNet& n, const std::string& layer, const std::string& reader, int64_t channels,
               bool depthwise) {
  const auto factor = [](int64_t c) { return std::exp2(2.0f * static_cast<float>(c % 4)); };
  const auto change = [&](const std::string& name, auto&& by) {
    const auto id = n.g.find_value(name);
    if (!id) return;
    Tensor t = n.g.constant(*id)->clone();
    auto v = t.mutable_data<float>();
    for (size_t i = 0; i < v.size(); ++i) v[i] *= by(static_cast<int64_t>(i), t);
    n.g.set_constant(*id, t);
  };
  const auto by_row = [&](int64_t i, const Tensor& t) {
    return 1 / factor(i / (t.elements() / channels));
  };
  change(layer + "_w", by_row);
  change(layer + "_b", by_row);
  change(reader + "_w", [&](int64_t i, const Tensor& t) {
    const int64_t kernel = t.rank() == 4 ? t.dim(2) * t.dim(3) : 1;
    return factor(depthwise ? i / kernel : i / kernel % channels);
  });
}

/// conv -> Relu -> depthwise -> Relu -> pointwise
SmallNet mobile() {
  SmallNet n;
  const ValueId x = n.input({1, 3, 8, 8});
  const ValueId a = n.op("Relu", "relu1", {n.conv("conv", x, 3, 8, {.pad = 1})});
  const ValueId b =
      n.op("Relu", "relu2", {n.conv("dw", a, 8, 8, {.kernel = 3, .groups = 8, .pad = 1})});
  n.output(n.conv("pw", b, 8, 5, {.kernel = 1}));
  n.infer();
  unbalance(n, "conv", "dw", 8, true);
  unbalance(n, "dw", "pw", 8, false);
  return n;
}

/// Two products with Relu between.
SmallNet perceptron() {
  SmallNet n;
  const ValueId h = n.op("Relu", "relu", {n.gemm("fc1", n.input({1, 12}), 12, 8)});
  n.output(n.gemm("fc2", h, 8, 5));
  n.infer();
  unbalance(n, "fc1", "fc2", 8, false);
  return n;
}

ValueMoments moments(const Graph& g, const Assignment& a, const Tensor& x) {
  ValueMoments out;
  for (const auto& [name, value] : values_of(g, x, equalizable_values(g, a))) {
    out[name] = moments_of(value);
  }
  return out;
}

Assignment assigned(Graph& g, const char* target = "narrow") {
  return assign(g, resolve(options_for(target)));
}

void expect_same_function(const Tensor& a, const Tensor& b) {
  const ErrorMeasures m = measure_error(a, b);
  EXPECT_LT(m.max_relative_to_range(), 1e-5);
  EXPECT_LT(m.rmse(), 1e-5);
}

TEST(Equalize, KeepsTheFunctionAndLessensTheNoise) {
  struct Case {
    const char* name;
    SmallNet (*make)();
    Dims dims;
    size_t values;
  };
  for (const Case& c :
       {Case{"mobile", mobile, {24, 3, 8, 8}, 2}, Case{"perceptron", perceptron, {64, 12}, 1}}) {
    SCOPED_TRACE(c.name);
    SmallNet net = c.make();
    const Tensor x = random_tensor(c.dims, 31);
    const Tensor before = run(net.g, x)[0];
    const double plain = sqnr_db(before, run(quantized(net.g, options_for("narrow"), x), x)[0]);
    const Assignment a = assigned(net.g);
    EXPECT_EQ(equalizable_values(net.g, a).size(), c.values);
    const auto changed = equalize(net.g, a, moments(net.g, a, x));
    ASSERT_EQ(changed.size(), c.values);
    for (const EqualizedValue& v : changed) {
      EXPECT_LT(v.noise_after, v.noise_before) << v.value;
      EXPECT_GT(v.noise_after, 0) << v.value;
      EXPECT_GE(v.power, 0);
      EXPECT_LE(v.power, 1);
    }
    expect_same_function(before, run(net.g, x)[0]);
    const double equal = sqnr_db(before, run(quantized(net.g, options_for("narrow"), x), x)[0]);
    EXPECT_GT(equal, plain + 3) << "the prediction comes true: " << plain << " dB before";
  }
}

TEST(Equalize, SmallChannelsGrowAndTheWidestStays) {
  SmallNet net = perceptron();
  const Tensor x = random_tensor({64, 12}, 31);
  const Assignment a = assigned(net.g);
  const ValueMoments before = moments(net.g, a, x);
  equalize(net.g, a, before);
  const ChannelMoments& old_range = before.at("relu_y");
  const ChannelMoments new_range = moments(net.g, a, x).at("relu_y");
  const auto widest = [](const ChannelMoments& m) {
    return *std::max_element(m.high.begin(), m.high.end());
  };
  EXPECT_NEAR(widest(new_range), widest(old_range), 1e-4f * widest(old_range));
  for (const size_t c : {size_t{3}, size_t{7}}) {  // those that were divided by 64
    EXPECT_GT(new_range.high[c], 4 * old_range.high[c]) << c;
  }
}

TEST(Equalize, BalancedChannelsAreLeftAsTheyAre) {
  SmallNet n;
  const ValueId x = n.input({1, 4});
  // Equal rows: nothing is gained by any scale.
  const ValueId w1 = n.constant("a_w", Tensor::from(std::vector<float>(16, 0.5f), {4, 4}));
  const ValueId w2 = n.constant("b_w", Tensor::from(std::vector<float>(16, 0.25f), {4, 4}));
  const ValueId h = n.op("Gemm", "a", {x, w1}, {{"transB", int64_t{1}}});
  n.output(n.op("Gemm", "b", {h, w2}, {{"transB", int64_t{1}}}));
  n.infer();
  const Assignment a = assigned(n.g);
  ASSERT_EQ(equalizable_values(n.g, a), Names{"a_y"});
  EXPECT_TRUE(equalize(n.g, a, moments(n.g, a, random_tensor({32, 4}, 1))).empty());
  EXPECT_EQ(constant_of(n.g, "a_w").to_floats(), std::vector<float>(16, 0.5f));
}

TEST(Equalize, SeveralReadersTakePartTogether) {
  SmallNet n;
  const ValueId x = n.input({1, 3, 6, 6});
  const ValueId a = n.op("Relu", "relu", {n.conv("first", x, 3, 4)});
  n.output(n.conv("left", a, 4, 2));
  n.output(n.conv("right", a, 4, 3, {.kernel = 1}));
  n.infer();
  unbalance(n, "first", "left", 4, false);
  const Tensor data = random_tensor({16, 3, 6, 6}, 2);
  const auto before = run(n.g, data);
  const Assignment as = assigned(n.g);
  EXPECT_EQ(equalize(n.g, as, moments(n.g, as, data)).size(), 1u);
  const auto after = run(n.g, data);
  for (size_t i = 0; i < 2; ++i) expect_same_function(before[i], after[i]);
}

TEST(Equalize, ValuesThatOthersReadAreRefused) {
  const auto equalizable = [](auto&& build) {
    SmallNet n;
    build(n);
    n.infer();
    const Assignment a = assigned(n.g);
    return equalizable_values(n.g, a);
  };
  EXPECT_EQ(equalizable([](SmallNet& n) {
              n.output(n.conv("b", n.conv("a", n.input({1, 3, 6, 6}), 3, 4), 4, 2));
            }),
            Names{"a_y"});
  EXPECT_TRUE(equalizable([](SmallNet& n) {  // a graph output too
                const ValueId a = n.conv("a", n.input({1, 3, 6, 6}), 3, 4);
                n.output(n.conv("b", a, 4, 2));
                n.output(a);
              })
                  .empty());
  EXPECT_TRUE(equalizable([](SmallNet& n) {  // read by an Add as well
                const ValueId a = n.conv("a", n.input({1, 3, 6, 6}), 3, 4, {.pad = 1});
                n.output(n.op("Add", "sum", {n.conv("b", a, 4, 4, {.pad = 1}), a}));
              })
                  .empty());
  EXPECT_TRUE(equalizable([](SmallNet& n) {  // what Clip does depends on the scale
                const ValueId a = n.conv("a", n.input({1, 3, 6, 6}), 3, 4);
                const ValueId clip = n.op("Clip", "clip",
                                          {a, n.constant("lo", Tensor::scalar(0.0f)),
                                           n.constant("hi", Tensor::scalar(6.0f))});
                n.output(n.conv("b", clip, 4, 2));
              })
                  .empty());
  EXPECT_TRUE(equalizable([](SmallNet& n) {  // as what Sigmoid does
                const ValueId a = n.op("Sigmoid", "s", {n.conv("a", n.input({1, 3, 6, 6}), 3, 4)});
                n.output(n.conv("b", a, 4, 2));
              })
                  .empty());
}

TEST(Equalize, LayersOfOtherKindsTakeNoPart) {
  const auto with = [](auto&& change) {
    SmallNet net = perceptron();
    QuantizeOptions o = options_for("narrow");
    change(o);
    const Assignment a = assign(net.g, resolve(o));
    return equalizable_values(net.g, a).size();
  };
  EXPECT_EQ(with([](QuantizeOptions&) {}), 1u);
  EXPECT_EQ(with([](QuantizeOptions& o) { o.granularity = Granularity::per_tensor; }), 0u);
  EXPECT_EQ(with([](QuantizeOptions& o) { o.keep_float = {"fc2"}; }), 0u);
  EXPECT_EQ(with([](QuantizeOptions& o) { o.keep_float = {"fc1"}; }), 0u);
  EXPECT_EQ(with([](QuantizeOptions& o) { o.mode = Mode::dynamic; }), 0u);
  EXPECT_EQ(with([](QuantizeOptions& o) { o.mode = Mode::weight_only; }), 0u);
  EXPECT_EQ(with([](QuantizeOptions& o) { o.activations = number_type_from_string("uint16"); }),
            0u);
}

TEST(Equalize, UnknownOrForeignMomentsChangeNothing) {
  SmallNet net = perceptron();
  const Assignment a = assigned(net.g);
  const Tensor w = constant_of(net.g, "fc1_w").clone();
  EXPECT_TRUE(equalize(net.g, a, {}).empty());
  EXPECT_TRUE(equalize(net.g, a, {{"relu_y", moments_of(random_tensor({4, 6}, 1))}}).empty());
  EXPECT_TRUE(equalize(net.g, a, {{"relu_y", moments_of(Tensor(DType::float32, {4, 8}))}}).empty());
  EXPECT_TRUE(identical(constant_of(net.g, "fc1_w"), w));
}

TEST(Equalize, ChannelsThatNobodyReadsKeepTheirScale) {
  SmallNet net = perceptron();
  Tensor w = constant_of(net.g, "fc2_w").clone();
  for (int64_t r = 0; r < 5; ++r) w.mutable_data<float>()[static_cast<size_t>(r * 8 + 2)] = 0;
  net.g.set_constant(*net.g.find_value("fc2_w"), w);
  const Tensor x = random_tensor({64, 12}, 31);
  const Assignment a = assigned(net.g);
  const std::vector<float> before = constant_of(net.g, "fc1_w").to_floats();
  ASSERT_EQ(equalize(net.g, a, moments(net.g, a, x)).size(), 1u);
  const std::vector<float> after = constant_of(net.g, "fc1_w").to_floats();
  for (size_t i = 2 * 12; i < 3 * 12; ++i) EXPECT_EQ(after[i], before[i]);
  for (const float v : after) EXPECT_TRUE(std::isfinite(v));
}

}  // namespace
}  // namespace narrow
