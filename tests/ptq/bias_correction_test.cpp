// SPDX-License-Identifier: Apache-2.0
// Means that rounding of weights shifts, and biases that take the shift back.
#include "narrow/ptq/bias_correction/bias_correction.h"

#include <cmath>
#include <limits>

#include "narrow/ptq/rtn/rtn.h"
#include "ptq/ptq_testing.h"

namespace narrow {
namespace {

using namespace testing;

AssignedLayer layer_named(const Assignment& a, const std::string& node) {
  for (const AssignedLayer& layer : a.layers) {
    if (layer.node == node) return layer;
  }
  ADD_FAILURE() << "no layer " << node;
  return {};
}

/// Every kind of layer for which the correction is exact: no borders, so that E[W x] = W E[x].
struct Form {
  const char* name;
  SmallNet (*make)();
};
SmallNet pointwise(int64_t groups, bool bias) {
  SmallNet n;
  n.output(
      n.conv("layer", n.input({1, 6, 5, 5}), 6, 6, {.kernel = 1, .groups = groups, .bias = bias}));
  n.infer();
  return n;
}
SmallNet product(bool transposed) {
  SmallNet n;
  n.output(n.gemm("layer", n.input({1, 6}), 6, 6, true, transposed));
  n.infer();
  return n;
}
SmallNet matmul() {
  SmallNet n;
  const ValueId y = n.op("MatMul", "layer",
                         {n.input({1, 6}), n.constant("layer_w", random_tensor({6, 6}, 8, 0.3f))});
  n.output(n.op("Add", "add", {n.constant("layer_b", random_tensor({6}, 9)), y}));
  n.infer();
  return n;
}
const Form kForms[] = {
    {"convolution", [] { return pointwise(1, true); }},
    {"convolution without bias", [] { return pointwise(1, false); }},
    {"grouped", [] { return pointwise(2, true); }},
    {"depthwise", [] { return pointwise(6, true); }},
    {"Gemm [N, K]", [] { return product(true); }},
    {"Gemm [K, N]", [] { return product(false); }},
    {"MatMul and Add", [] { return matmul(); }},
};

TEST(BiasCorrection, RestoresTheMeanOfEveryChannel) {
  for (const Form& form : kForms) {
    SCOPED_TRACE(form.name);
    SmallNet net = form.make();
    const SymbolicShape& shape = *net.g.value(net.g.inputs()[0]).shape;
    Dims dims{64};
    for (size_t i = 1; i < shape.size(); ++i) dims.push_back(shape[i].value);
    const Tensor x = random_tensor(dims, 21, 1, 1.5f);  // a mean away from 0
    const ChannelMoments wanted = moments_of(run(net.g, x)[0]);
    QuantizeOptions o = options_for("narrow", Mode::weight_only);
    o.weights = number_type_from_string("int3");
    o.granularity = Granularity::per_tensor;  // so that one weight a channel is rounded too
    Assignment a = assign(net.g, resolve(o));
    AssignedLayer layer = layer_named(a, "layer");
    const QuantizedTensor w =
        round_weights(constant_of(net.g, layer.weights), *layer.weight_scheme);
    const auto shift = rounding_shift(net.g, layer, w, moments_of(x));
    net.g.set_constant(*net.g.find_value(layer.weights), dequantize(w.codes, w.params));
    const ChannelMoments rounded = moments_of(run(net.g, x)[0]);
    shift_bias(net.g, layer, shift, BiasForm::int32);
    EXPECT_FALSE(layer.bias.empty());
    const ChannelMoments corrected = moments_of(run(net.g, x)[0]);
    double worst_before = 0;
    for (size_t c = 0; c < wanted.mean.size(); ++c) {
      worst_before = std::max(worst_before, std::abs(rounded.mean[c] - wanted.mean[c]));
      EXPECT_NEAR(corrected.mean[c], wanted.mean[c], 2e-6) << "channel " << c;
    }
    EXPECT_GT(worst_before, 1e-2) << "there was something to correct";
  }
}

TEST(BiasCorrection, ExactWeightsHaveNoShift) {
  SmallNet n;
  const ValueId w = n.constant("layer_w", Tensor::from<float>({127, -3, 5, 127, 0, 64}, {2, 3}));
  n.output(n.op("Gemm", "layer", {n.input({1, 3}), w}, {{"transB", int64_t{1}}}));
  n.infer();
  Assignment a = assign(n.g, resolve(options_for("narrow", Mode::weight_only)));
  AssignedLayer& layer = a.layers[0];
  const QuantizedTensor q = round_weights(constant_of(n.g, "layer_w"), *layer.weight_scheme);
  const auto shift = rounding_shift(n.g, layer, q, moments_of(random_tensor({9, 3}, 1, 1, 4)));
  EXPECT_EQ(shift, (std::vector<double>{0, 0}));
  shift_bias(n.g, layer, shift, BiasForm::int32);
  EXPECT_TRUE(layer.bias.empty()) << "no bias is created for nothing";
  EXPECT_EQ(n.g.node(*n.g.find_node("layer")).inputs.size(), 2u);
}

TEST(BiasCorrection, MomentsOfAnotherWidthAreLeftAlone) {
  SmallNet net = product(true);
  const Assignment a = assign(net.g, resolve(options_for("narrow", Mode::weight_only)));
  const QuantizedTensor q =
      round_weights(constant_of(net.g, "layer_w"), *a.layers[0].weight_scheme);
  for (const int64_t channels : {1, 4, 5, 7, 12}) {
    const auto m = moments_of(random_tensor({9, channels}, 1, 1, 4));
    const auto shift = rounding_shift(net.g, a.layers[0], q, m);
    ASSERT_EQ(shift.size(), 6u);
    // One channel divides the row: every weight multiplies that one mean.
    if (channels > 1) {
      EXPECT_EQ(shift, std::vector<double>(6, 0.0)) << channels;
    }
  }
  EXPECT_EQ(rounding_shift(net.g, a.layers[0], q, {}), std::vector<double>(6, 0.0));
}

TEST(BiasCorrection, ANewBiasHasTheFormOfTheTarget) {
  for (const BiasForm form : {BiasForm::int32, BiasForm::float32}) {
    SmallNet net = pointwise(1, false);
    Assignment a = assign(net.g, resolve(options_for("narrow")));
    AssignedLayer& layer = a.layers[0];
    ASSERT_TRUE(layer.bias.empty());
    shift_bias(net.g, layer, {1, 2, 3, 4, 5, 6}, form);
    EXPECT_EQ(constant_of(net.g, layer.bias).to_floats(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(layer.integer_bias, form == BiasForm::int32);
    EXPECT_EQ(net.g.node(*net.g.find_node("layer")).inputs.size(), 3u);
    infer_shapes(net.g);
  }
}

TEST(BiasCorrection, AMatMulWithoutAddKeepsItsForm) {
  SmallNet n;
  n.output(n.op("MatMul", "layer",
                {n.input({1, 6}), n.constant("layer_w", random_tensor({6, 6}, 8, 0.3f))}));
  n.infer();
  Assignment a = assign(n.g, resolve(options_for("narrow")));
  shift_bias(n.g, a.layers[0], std::vector<double>(6, 1.0), BiasForm::int32);
  EXPECT_TRUE(a.layers[0].bias.empty());
  EXPECT_EQ(n.g.num_nodes(), 1u);
}

TEST(BiasCorrection, ShiftsThatAreNotFiniteAreRefused) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), 1e300}) {
    SmallNet net = pointwise(1, true);
    Assignment a = assign(net.g, resolve(options_for("narrow")));
    const std::string text = refusal(
        [&] {
          shift_bias(net.g, a.layers[0], {0, 0, bad, 0, 0, 0}, BiasForm::int32);
        },
        ErrorCode::numeric_failure);
    expect_in(text, "node 'layer': the corrected bias 2 is");
  }
}

TEST(BiasCorrection, ThePlanAppliesItWhereMomentsAreKnown) {
  const auto bias_after = [](BiasCorrection kind, bool known) {
    SmallNet net = pointwise(1, false);
    const Tensor x = random_tensor({32, 6, 5, 5}, 4, 1, 2);
    Assignment a = assign(net.g, resolve(options_for("narrow")));
    const auto ranges = activation_ranges(a, observe(net.g, a, x), {});
    PlanOptions options;
    options.bias_correction = kind;
    if (known) options.moments["layer"] = moments_of(x);
    const QuantizationPlan plan = make_plan(net.g, a, ranges, options);
    return plan.qdq.biases.size();
  };
  EXPECT_EQ(bias_after(BiasCorrection::fast, true), 1u);
  EXPECT_EQ(bias_after(BiasCorrection::fast, false), 0u);
  EXPECT_EQ(bias_after(BiasCorrection::none, true), 0u);
}

}  // namespace
}  // namespace narrow
