// SPDX-License-Identifier: Apache-2.0
// Which nodes run on codes, which values share a grid, what rules and patterns change.
#include "narrow/ptq/assign.h"

#include <set>

#include "ptq/ptq_testing.h"

namespace narrow {
namespace {

using namespace testing;
using Names = std::vector<std::string>;

Names layer_names(const Assignment& a) {
  Names names;
  for (const AssignedLayer& layer : a.layers) names.push_back(layer.node);
  return names;
}
Names grid_names(const Assignment& a) {
  Names names;
  for (const auto& [name, grid] : a.activations) names.push_back(name);
  return names;
}
std::string reason(const Assignment& a, const std::string& node) {
  for (const KeptFloat& kept : a.kept_float) {
    if (kept.node == node) return kept.reason;
  }
  return "not kept float";
}
Assignment assigned(SmallNet& net, const QuantizeOptions& options) {
  return assign(net.g, resolve(options));
}

TEST(Assign, AClassifierIsQuantizedFromInputToTheLastProduct) {
  SmallNet net = classifier();
  const Assignment a = assigned(net, options_for("narrow"));
  EXPECT_EQ(layer_names(a), (Names{"conv1", "conv2", "fc"}));
  EXPECT_EQ(grid_names(a), (Names{"flat_y", "pool_y", "relu1_y", "relu2_y", "x"}));
  EXPECT_TRUE(a.kept_float.empty());
  const AssignedLayer& conv = a.layers[0];
  EXPECT_EQ(conv.input, "x");
  EXPECT_EQ(conv.weights, "conv1_w");
  EXPECT_EQ(conv.bias, "conv1_b");
  EXPECT_EQ(conv.output, "relu1_y");  // Relu belongs to the layer
  EXPECT_EQ(conv.channels, 8);
  EXPECT_TRUE(conv.integer_layer);
  EXPECT_TRUE(conv.integer_bias);
  EXPECT_EQ(a.layers[2].output, "fc_y");
  for (const AssignedLayer& layer : a.layers) {
    EXPECT_EQ(layer.weight_scheme->granularity, Granularity::per_axis);
    EXPECT_EQ(layer.weight_scheme->axis, 0);
  }
}

TEST(Assign, MovedCodesKeepTheGridOfTheirSource) {
  SmallNet net = classifier();
  const Assignment a = assigned(net, options_for("narrow"));
  EXPECT_EQ(a.activations.at("pool_y").sources, Names{"relu1_y"});
  EXPECT_EQ(a.activations.at("relu1_y").sources, Names{"relu1_y"});
  EXPECT_EQ(a.activations.at("flat_y").sources, Names{"relu2_y"});
  EXPECT_EQ(a.activations.at("relu2_y").sources, Names{"relu2_y"});
  EXPECT_EQ(a.observed(), (Names{"relu1_y", "relu2_y", "x"}));
}

TEST(Assign, TargetsThatNeedIntegerResultsQuantizeTheOutput) {
  for (const TargetProfile& target : all_targets()) {
    SmallNet net = classifier();
    const Assignment a = assigned(net, options_for(target.name));
    EXPECT_EQ(a.activations.count("fc_y"), target.quantize_outputs ? 1u : 0u) << target.name;
    EXPECT_EQ(layer_names(a), (Names{"conv1", "conv2", "fc"})) << target.name;
    for (const AssignedLayer& layer : a.layers) {
      EXPECT_EQ(layer.integer_bias, target.bias == BiasForm::int32) << target.name;
    }
    for (const auto& [name, grid] : a.activations) {
      EXPECT_EQ(grid.scheme.is_signed, target.default_activations[0] == 'i') << target.name;
    }
  }
}

SmallNet two_branches() {
  SmallNet n;
  const ValueId x = n.input({1, 3, 6, 6});
  const ValueId a = n.op("Relu", "relu_a", {n.conv("conv_a", x, 3, 4)});
  const ValueId b = n.conv("conv_b", x, 3, 4);
  const ValueId c = n.op("Concat", "cat", {a, b}, {{"axis", int64_t{1}}});
  n.output(n.conv("conv_c", c, 8, 4));
  n.infer();
  return n;
}

TEST(Assign, ConcatSharesOneGridWhereTheTargetCopiesCodes) {
  SmallNet copies = two_branches();
  const Assignment equal = assigned(copies, options_for("openvino"));
  for (const char* value : {"relu_a_y", "conv_b_y", "cat_y"}) {
    EXPECT_EQ(equal.activations.at(value).sources, (Names{"conv_b_y", "relu_a_y"})) << value;
  }
  SmallNet requantizes = two_branches();
  const Assignment own = assigned(requantizes, options_for("narrow"));
  EXPECT_EQ(own.activations.at("relu_a_y").sources, Names{"relu_a_y"});
  EXPECT_EQ(own.activations.at("conv_b_y").sources, Names{"conv_b_y"});
  EXPECT_EQ(own.activations.at("cat_y").sources, Names{"cat_y"});
}

TEST(Assign, PatternsKeepLayersFloatAndSayWhy) {
  QuantizeOptions o = options_for("narrow");
  o.exclude = {"conv2"};
  o.keep_float = {"f?"};
  SmallNet net = classifier();
  const Assignment a = assigned(net, o);
  EXPECT_EQ(layer_names(a), Names{"conv1"});
  EXPECT_EQ(reason(a, "conv2"), "exclude names it");
  EXPECT_EQ(reason(a, "fc"), "keep_float names it");
  EXPECT_EQ(grid_names(a), Names{"x"}) << "nobody reads codes behind conv1";

  QuantizeOptions some = options_for("narrow");
  some.include = {"*conv2"};
  SmallNet other = classifier();
  const Assignment b = assigned(other, some);
  EXPECT_EQ(layer_names(b), Names{"conv2"});
  EXPECT_EQ(reason(b, "conv1"), "include does not name it");
}

TEST(Assign, APatternWithoutANodeIsRefusedWithTheNearest) {
  SmallNet net = classifier();
  QuantizeOptions o = options_for("narrow");
  o.keep_float = {"conv1", "comv2"};
  const std::string text = refusal([&] { assigned(net, o); });
  expect_in(text, "keep_float: 'comv2' matches no node");
  expect_in(text, "did you mean 'conv2'?");
  o = options_for("narrow");
  o.layers = {{.match = "head*"}};
  expect_in(refusal([&] { assigned(net, o); }), "layers: 'head*' matches no node");
}

TEST(Assign, LaterRulesWin) {
  QuantizeOptions o = options_for("narrow");
  o.layers = {{.match = "conv*", .weights = number_type_from_string("int4")},
              {.match = "conv2", .weights = number_type_from_string("int6")},
              {.match = "fc", .activations = number_type_from_string("uint16")}};
  SmallNet net = classifier();
  const Assignment a = assigned(net, o);
  EXPECT_EQ(a.layers[0].weight_scheme->bits, 4);
  EXPECT_EQ(a.layers[1].weight_scheme->bits, 6);
  EXPECT_EQ(a.layers[2].weight_scheme->bits, 8);
  EXPECT_EQ(a.activations.at("flat_y").scheme.bits, 16);
  EXPECT_EQ(a.activations.at("relu2_y").scheme.bits, 16) << "one grid, one type";
  EXPECT_EQ(a.activations.at("x").scheme.bits, 8);
  EXPECT_FALSE(a.layers[2].integer_layer) << "16 bit products run in float";
  EXPECT_FALSE(a.layers[2].integer_bias);
}

TEST(Assign, ARuleCanKeepALayerFloat) {
  QuantizeOptions o = options_for("narrow");
  o.layers = {{.match = "conv2",
               .weights = number_type_from_string("float32"),
               .activations = number_type_from_string("float32")}};
  SmallNet net = classifier();
  const Assignment a = assigned(net, o);
  EXPECT_EQ(layer_names(a), (Names{"conv1", "fc"}));
  EXPECT_EQ(reason(a, "conv2"), "a rule says so");

  o.layers = {{.match = "conv1", .weights = number_type_from_string("float32")}};
  SmallNet activations_only = classifier();
  const Assignment b = assigned(activations_only, o);
  EXPECT_FALSE(b.layers[0].weight_scheme.has_value());
  EXPECT_FALSE(b.layers[0].half_weights);
  EXPECT_TRUE(b.layers[0].quantized_input);

  o.layers = {{.match = "fc", .group_size = 16}};
  SmallNet groups = classifier();
  expect_in(refusal([&] { assigned(groups, o); }),
            "layer 'fc': groups of weights need float32 activations");
}

TEST(Assign, WhatATargetLacksStaysFloat) {
  SmallNet n;
  const ValueId x = n.input({1, 3, 6, 6});
  const ValueId a = n.op("HardSwish", "swish", {n.conv("conv1", x, 3, 4)});
  n.output(n.conv("conv2", a, 4, 4));
  n.infer();
  SmallNet copy = n;
  EXPECT_EQ(reason(assigned(n, options_for("tensorrt")), "swish"),
            "target tensorrt has no integer HardSwish");
  EXPECT_EQ(reason(assigned(copy, options_for("narrow")), "swish"), "not kept float");
}

TEST(Assign, IntegerThroughoutReachesBehindTheFirstAndTheLastLayer) {
  SmallNet n;
  const ValueId x = n.input({1, 3, 6, 6});
  const ValueId a = n.op("Tanh", "first", {x});
  n.output(n.op("Sigmoid", "last", {n.conv("conv", a, 3, 4)}));
  n.infer();
  SmallNet copy = n;
  EXPECT_EQ(grid_names(assigned(n, options_for("narrow"))), Names{"first_y"});
  QuantizeOptions o = options_for("narrow");
  o.integer_throughout = true;
  EXPECT_EQ(grid_names(assigned(copy, o)), (Names{"conv_y", "first_y", "last_y", "x"}));
}

TEST(Assign, SharedConstantsBecomeOwnOnes) {
  SmallNet n;
  const ValueId x = n.input({1, 4, 6, 6});
  const ValueId w = n.constant("w", random_tensor({4, 4, 3, 3}, 1));
  const ValueId b = n.constant("b", random_tensor({4}, 2));
  const ValueId y = n.op("Conv", "one", {x, w, b});
  n.output(n.op("Conv", "two", {y, w, b}));
  n.infer();
  const Tensor data = random_tensor({2, 4, 6, 6}, 3);
  const Tensor before = run(n.g, data)[0];
  const Assignment a = assigned(n, options_for("narrow"));
  const std::set<std::string> own{a.layers[0].weights, a.layers[1].weights, a.layers[0].bias,
                                  a.layers[1].bias};
  EXPECT_EQ(own.size(), 4u);
  EXPECT_TRUE(identical(run(n.g, data)[0], before));
}

TEST(Assign, GroupsOfConvolutionWeightsAreRowsOfAMatrix) {
  SmallNet net = classifier();
  const Tensor data = random_tensor({2, 3, 8, 8}, 3);
  const Tensor before = run(net.g, data)[0];
  QuantizeOptions o = options_for("narrow", Mode::weight_only);
  o.weights = number_type_from_string("int4");
  o.group_size = 16;
  const Assignment a = assigned(net, o);
  EXPECT_TRUE(a.activations.empty());
  const Tensor& matrix = constant_of(net.g, a.layers[0].weights);
  EXPECT_EQ(matrix.dims(), (Dims{8, 27}));
  EXPECT_EQ(a.layers[0].weight_scheme->axis, 1);
  EXPECT_EQ(a.layers[0].weight_scheme->group_size, 16);
  ASSERT_EQ(a.notes.size(), 1u);
  expect_in(a.notes[0], "the last group of each channel is shorter in: conv1 (27), conv2 (72)");
  EXPECT_TRUE(identical(run(net.g, data)[0], before));
}

TEST(Assign, RulesCannotAskForWhatTheTargetLacks) {
  const auto with = [](const char* target, LayerRule rule) {
    SmallNet net = classifier();
    QuantizeOptions o = options_for(target);
    rule.match = "conv1";
    o.layers = {rule};
    return refusal([&] { assigned(net, o); });
  };
  const auto type = [](const char* name) { return number_type_from_string(name); };
  expect_in(with("ort", {.weights = type("int4")}),
            "layer 'conv1': weights int4 does not fit target ort in static mode");
  expect_in(with("ort", {.activations = type("uint4")}), "activations uint4 does not fit");
  expect_in(with("openvino", {.activations = type("int8")}), "activations int8 does not fit");
  expect_in(with("tensorrt", {.weight_symmetry = Symmetry::asymmetric}),
            "layer 'conv1': target tensorrt needs weight_symmetry symmetric");
}

TEST(Assign, TargetsWithoutShortGroupsGetWholeOnes) {
  // OpenVINO refuses the whole file if one axis is no multiple of its block size.
  for (const char* target : {"openvino", "tensorrt"}) {
    SmallNet net = classifier();
    QuantizeOptions o = options_for(target, Mode::weight_only);
    o.weights = number_type_from_string("int4");
    o.group_size = 24;  // conv1 sums 27 weights, conv2 72
    const Assignment a = assigned(net, o);
    EXPECT_EQ(a.layers[0].weight_scheme->granularity, Granularity::per_axis);
    EXPECT_EQ(a.layers[0].weight_scheme->axis, a.layers[0].channel_axis);
    EXPECT_EQ(a.layers[1].weight_scheme->granularity, Granularity::per_group);
    ASSERT_FALSE(a.notes.empty());
    expect_in(a.notes[0], "has no shorter last group; one scale for each channel in: conv1 (27)");
    for (const AssignedLayer& layer : a.layers) {
      if (layer.weight_scheme->granularity != Granularity::per_group) continue;
      EXPECT_EQ(constant_of(net.g, layer.weights).dim(layer.weight_scheme->axis) % 24, 0);
    }
  }
}

TEST(Assign, QuantizedLayersAreRefusedByName) {
  SmallNet net = classifier();
  const Tensor data = random_tensor({4, 3, 8, 8}, 5);
  QuantizeOptions partly = options_for("narrow");
  partly.keep_float = {"conv2"};
  Graph once = quantized(net.g, partly, data);
  EXPECT_EQ(quantized_layers(once), (Names{"conv1", "fc"}));
  const std::string text = refusal([&] {
    Graph copy = once;
    assign(copy, resolve(options_for("narrow")));
  });
  expect_in(text, "already quantized: 'conv1', 'fc'");
  QuantizeOptions rest = options_for("narrow");
  rest.exclude = {"conv1", "fc"};
  EXPECT_EQ(layer_names(assign(once, resolve(rest))), Names{"conv2"});
  EXPECT_EQ(quantized_layers(quantized(net.g, options_for("narrow", Mode::dynamic), data)).size(),
            3u);
}

TEST(Assign, NothingToQuantizeIsAnErrorThatNamesReasons) {
  SmallNet n;
  const ValueId x = n.input({1, 4});
  const ValueId w = n.input({4, 4}, "w");
  n.output(n.op("Gemm", "fc", {x, w}));
  n.infer();
  expect_in(refusal([&] { assigned(n, options_for("narrow")); }),
            "no layer can be quantized; 'fc' (Gemm): its weights are not constant");
}

TEST(Assign, ModesWithoutGridsNeedNoStatistics) {
  for (const Mode mode : {Mode::dynamic, Mode::weight_only}) {
    SmallNet net = classifier();
    const Assignment a = assigned(net, options_for("narrow", mode));
    EXPECT_TRUE(a.observed().empty());
    EXPECT_EQ(a.layers.size(), 3u);
    for (const AssignedLayer& layer : a.layers) {
      EXPECT_EQ(layer.quantized_input, mode == Mode::dynamic);
      EXPECT_FALSE(layer.integer_bias);
    }
  }
}

}  // namespace
}  // namespace narrow
