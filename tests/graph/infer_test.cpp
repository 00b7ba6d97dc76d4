// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <chrono>
#include <limits>

#include "graph/net.h"
#include "narrow/core/error.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/onnx_types.h"

namespace narrow {
namespace {

const Dim kN = Dim::symbol("N");

TEST(InferShapes, CarriesSymbolsThroughANetwork) {
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 3, 8, 8});
  const ValueId conv = n.op("Conv", {x, n.zeros({4, 3, 3, 3})},
                            {{"pads", Ints{1, 1, 1, 1}}, {"strides", Ints{2, 2}}});
  const ValueId relu = n.op("Relu", {conv});
  const ValueId flat = n.op("Flatten", {relu});
  const ValueId y = n.op("Gemm", {flat, n.zeros({64, 10}), n.zeros({10})});
  n.output(y);
  n.infer();
  EXPECT_EQ(n.shape(conv), "[N, 4, 4, 4]");
  EXPECT_EQ(n.shape(flat), "[N, 64]");
  EXPECT_EQ(n.shape(y), "[N, 10]");
  EXPECT_EQ(n.dtype(y), DType::float32);
  verify(n.g);
}

TEST(InferShapes, SamePaddingKeepsSymbolicExtents) {
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 3, Dim::symbol("H"), Dim::symbol("W")});
  const ValueId w = n.zeros({4, 3, 3, 3});
  const ValueId same = n.op("Conv", {x, w}, {{"auto_pad", std::string("SAME_LOWER")}});
  const ValueId padded = n.op("Conv", {x, w}, {{"pads", Ints{1, 1, 1, 1}}});
  const ValueId shrunk = n.op("Conv", {x, w});
  const ValueId strided =
      n.op("Conv", {x, w}, {{"pads", Ints{1, 1, 1, 1}}, {"strides", Ints{2, 1}}});
  n.infer();
  EXPECT_EQ(n.shape(same), "[N, 4, H, W]");
  EXPECT_EQ(n.shape(padded), "[N, 4, H, W]");
  EXPECT_EQ(n.shape(shrunk), "[N, 4, ?, ?]");
  EXPECT_EQ(n.shape(strided), "[N, 4, ?, W]");
}

TEST(InferShapes, BroadcastingOfSymbols) {
  Net n;
  const ValueId a = n.input(SymbolicShape{kN, 1, 5});
  const ValueId b = n.input(SymbolicShape{kN, Dim::symbol("M"), 1});
  const ValueId c = n.input(SymbolicShape{Dim::symbol("K"), 1, Dim()});
  const ValueId ab = n.op("Add", {a, b});
  const ValueId ac = n.op("Add", {a, c});
  const ValueId bc = n.op("Add", {b, c});
  n.infer();
  EXPECT_EQ(n.shape(ab), "[N, M, 5]");
  EXPECT_EQ(n.shape(ac), "[?, 1, 5]");  // N and K may be equal or one of them 1
  EXPECT_EQ(n.shape(bc), "[?, M, ?]");
}

/// x.view(x.shape[0], -1) as exporters write it.
ValueId flatten_by_shape(Net& n, ValueId x) {
  const ValueId shape = n.op("Shape", {x});
  const ValueId batch = n.op("Gather", {shape, n.scalar(int64_t{0})});
  const ValueId column = n.op("Unsqueeze", {batch, n.ints({0})});
  const ValueId wanted = n.op("Concat", {column, n.ints({-1})}, {{"axis", int64_t{0}}});
  return n.op("Reshape", {x, wanted});
}

TEST(InferShapes, ReshapeByShapeArithmeticKeepsTheBatchSymbol) {
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 3, 4, 5});
  const ValueId y = flatten_by_shape(n, x);
  n.infer();
  EXPECT_EQ(n.shape(y), "[N, 60]");
  const std::vector<std::optional<Dims>> dims = {Dims{7, 3, 4, 5}};
  n.infer(dims);
  EXPECT_EQ(n.shape(y), "[7, 60]");
  const std::vector<std::optional<Dims>> other = {Dims{2, 3, 4, 5}};
  n.infer(other);  // old annotations do not stand in the way of new dimensions
  EXPECT_EQ(n.shape(y), "[2, 60]");
}

TEST(InferShapes, ResizeByComputedSizes) {
  // sizes = concat(shape(x)[:2], int(floor(float(shape(x)[2:]) * 2)))
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 3, 7, 9});
  const ValueId shape = n.op("Shape", {x});
  const ValueId front = n.op("Slice", {shape, n.ints({0}), n.ints({2}), n.ints({0})});
  const ValueId back = n.op("Slice", {shape, n.ints({2}), n.ints({4}), n.ints({0})});
  const ValueId real = n.op("Cast", {back}, {{"to", dtype_to_onnx(DType::float32)}});
  const ValueId doubled = n.op("Floor", {n.op("Mul", {real, n.floats({1.5f})})});
  const ValueId whole = n.op("Cast", {doubled}, {{"to", dtype_to_onnx(DType::int64)}});
  const ValueId sizes = n.op("Concat", {front, whole}, {{"axis", int64_t{0}}});
  const ValueId y = n.op("Resize", {x, kNoId, kNoId, sizes});
  n.infer();
  EXPECT_EQ(n.value(whole), (Ints{10, 13}));
  EXPECT_EQ(n.shape(y), "[N, 3, 10, 13]");
}

TEST(InferShapes, ExpandByWhereAndEqual) {
  // torch.expand writes where(shape == -1, ones, shape).
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 1, 4});
  const ValueId like = n.input(SymbolicShape{kN, 6, 4});
  const ValueId wanted = n.op("Shape", {like});
  const ValueId unset = n.op("Equal", {wanted, n.ints({-1})});
  const ValueId ones =
      n.op("ConstantOfShape", {n.ints({3})}, {{"value", Tensor::vector<int64_t>({1})}});
  const ValueId y = n.op("Expand", {x, n.op("Where", {unset, ones, wanted})});
  n.infer();
  EXPECT_EQ(n.shape(y), "[N, 6, 4]");
}

TEST(InferShapes, PadsFromTransposedPairs) {
  // torch.nn.functional.pad: pairs from the last axis on, turned around into begins and ends.
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 3, 8, 8});
  const ValueId zeros =
      n.op("ConstantOfShape", {n.ints({4})}, {{"value", Tensor::vector<int64_t>({0})}});
  const ValueId all = n.op("Concat", {n.ints({1, 2, 3, 4}), zeros}, {{"axis", int64_t{0}}});
  const ValueId pairs = n.op("Reshape", {all, n.ints({-1, 2})});
  const ValueId reversed =
      n.op("Slice", {pairs, n.ints({-1}), n.ints({std::numeric_limits<int64_t>::min()}),
                     n.ints({0}), n.ints({-1})});
  const ValueId columns = n.op("Transpose", {reversed}, {{"perm", Ints{1, 0}}});
  const ValueId pads = n.op("Reshape", {columns, n.ints({-1})});
  const ValueId y = n.op("Pad", {x, pads});
  n.infer();
  EXPECT_EQ(n.value(pads), (Ints{0, 0, 3, 1, 0, 0, 4, 2}));
  EXPECT_EQ(n.shape(y), "[N, 3, 15, 11]");
}

TEST(InferShapes, IntegerArithmeticIsThatOfTheRunTime) {
  Net n;
  const ValueId a = n.ints({7, -7, 7, -7});
  const ValueId b = n.ints({2, 2, -2, -2});
  const ValueId div = n.op("Div", {a, b});
  const ValueId mod = n.op("Mod", {a, b});
  const ValueId by_zero = n.op("Div", {a, n.ints({0})});
  const ValueId overflow =
      n.op("Mul", {n.ints({std::numeric_limits<int64_t>::max()}), n.ints({2})});
  const ValueId lowest = n.op("Div", {n.ints({std::numeric_limits<int64_t>::min()}), n.ints({-1})});
  const ValueId small = n.op("Add", {n.scalar(std::numeric_limits<int32_t>::max()), n.scalar(1)});
  const ValueId range =
      n.op("Range", {n.scalar(int64_t{5}), n.scalar(int64_t{-4}), n.scalar(int64_t{-3})});
  const ValueId prod = n.op("ReduceProd", {range}, {{"keepdims", int64_t{0}}});
  const ValueId less = n.op("Less", {a, b});
  n.infer();
  EXPECT_EQ(n.value(div), (Ints{3, -3, -3, 3}));
  EXPECT_EQ(n.value(mod), (Ints{1, 1, -1, -1}));
  EXPECT_TRUE(n.value(by_zero).empty());
  EXPECT_TRUE(n.value(overflow).empty());
  EXPECT_TRUE(n.value(lowest).empty());
  EXPECT_TRUE(n.value(small).empty());
  EXPECT_EQ(n.value(range), (Ints{5, 2, -1}));
  EXPECT_EQ(n.value(prod), (Ints{-10}));
  EXPECT_EQ(n.value(less), (Ints{0, 1, 0, 1}));
}

TEST(InferShapes, SymbolsSurviveNeutralArithmetic) {
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 4});
  const ValueId shape = n.op("Shape", {x});
  const ValueId same = n.op("Div", {n.op("Mul", {shape, n.ints({1})}), n.ints({1})});
  const ValueId moved = n.op("Add", {shape, n.ints({1})});
  const ValueId a = n.op("ConstantOfShape", {same});
  const ValueId b = n.op("ConstantOfShape", {moved});
  n.infer();
  EXPECT_EQ(n.shape(a), "[N, 4]");
  EXPECT_EQ(n.shape(b), "[?, 5]");
}

TEST(InferShapes, ReshapeFindsTheMissingDimension) {
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 6, Dim::symbol("L")});
  const auto reshaped = [&](const Ints& shape) { return n.op("Reshape", {x, n.ints(shape)}); };
  const ValueId split = reshaped({0, 2, 3, -1});
  const ValueId merged = reshaped({0, -1});
  const ValueId flat = reshaped({-1});
  const ValueId y = n.input(SymbolicShape{Dim(), 6});
  const ValueId anonymous = n.op("Reshape", {y, n.ints({0, 3, -1})});
  n.infer();
  EXPECT_EQ(n.shape(split), "[N, 2, 3, L]");
  EXPECT_EQ(n.shape(merged), "[N, ?]");
  EXPECT_EQ(n.shape(flat), "[?]");
  EXPECT_EQ(n.shape(anonymous), "[?, 3, 2]");
}

TEST(InferShapes, ValuesThatAreTooManyAreDropped) {
  Net n;
  const ValueId part = n.op("Identity", {n.ints(Ints(1000, 1))});
  const ValueId joined = n.op("Concat", std::vector<ValueId>(200, part), {{"axis", int64_t{0}}});
  n.infer();
  EXPECT_EQ(n.value(part).size(), 1000u);
  EXPECT_TRUE(n.value(joined).empty());
  EXPECT_EQ(n.shape(joined), "[200000]");
}

TEST(InferShapes, InputDimensionsBindTheirSymbolEverywhere) {
  Net n;
  const ValueId a = n.input(SymbolicShape{kN, 3});
  const ValueId b = n.input(SymbolicShape{kN, 1});
  const ValueId y = n.op("Add", {a, b});
  const std::vector<std::optional<Dims>> dims = {Dims{4, 3}, std::nullopt};
  n.infer(dims);
  EXPECT_EQ(n.shape(b), "[4, 1]");
  EXPECT_EQ(n.shape(y), "[4, 3]");
}

TEST(InferShapes, BadInputDimensionsAreRefused) {
  Net n;
  n.input(SymbolicShape{kN, 3});
  n.input(SymbolicShape{kN, 1});
  const std::vector<std::vector<std::optional<Dims>>> bad = {
      {Dims{4, 3}, Dims{5, 1}},                    // N twice, differently
      {Dims{4, 3, 1}},                             // rank
      {Dims{-1, 3}},                               // negative
      {Dims{int64_t{1} << 40, int64_t{1} << 40}},  // too many elements
      {std::nullopt, std::nullopt, Dims{1}},       // no such input
  };
  for (const auto& dims : bad) EXPECT_THROW(n.infer(dims), Error);
}

TEST(InferShapes, AnnotationsFillWhatInferenceCannotKnow) {
  Net n;
  const ValueId x = n.input(SymbolicShape{4, 5});
  const ValueId found = n.op("NonZero", {x});
  n.g.mutable_value(found).shape = SymbolicShape{2, Dim::symbol("found")};
  const ValueId y = n.op("Identity", {found});
  n.infer();
  EXPECT_EQ(n.shape(y), "[2, found]");
}

TEST(InferShapes, ContradictingAnnotationsAreErrors) {
  for (const bool rank : {false, true}) {
    Net n;
    const ValueId y = n.op("Relu", {n.input(SymbolicShape{4, 5})});
    n.g.mutable_value(y).shape = rank ? SymbolicShape{4} : SymbolicShape{4, 6};
    expect_error(n, "is declared");
  }
  Net n;
  const ValueId y = n.op("Relu", {n.input(SymbolicShape{4})});
  n.g.mutable_value(y).dtype = DType::int8;
  expect_error(n, "is declared int8 but is float32");
}

TEST(InferShapes, NodesOutOfOrderAreSortedFirst) {
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 4});
  const ValueId middle = n.g.add_value("middle");
  const ValueId y = n.op("Relu", {middle});
  n.g.add_node_onto("Tanh", {x}, {middle});
  n.infer();
  EXPECT_EQ(n.shape(y), "[N, 4]");
}

TEST(InferShapes, UnknownRanksStayUnknownButDtypesDoNot) {
  Net n;
  const ValueId x = n.input(std::nullopt);
  const ValueId conv = n.op("Conv", {x, n.zeros({4, 3, 3, 3})});
  const ValueId relu = n.op("Relu", {x});
  const ValueId shape = n.op("Shape", {x});
  const ValueId flat = n.op("Flatten", {x});
  n.infer();
  EXPECT_EQ(n.shape(conv), "[?, ?, ?, ?]");
  EXPECT_EQ(n.shape(relu), "unranked");
  EXPECT_EQ(n.dtype(relu), DType::float32);
  EXPECT_EQ(n.shape(shape), "[?]");
  EXPECT_EQ(n.dtype(shape), DType::int64);
  EXPECT_EQ(n.shape(flat), "[?, ?]");
}

// --- control flow -----------------------------------------------------------------------------

std::shared_ptr<Graph> shared(Net& n) {
  return std::make_shared<Graph>(std::move(n.g));
}

TEST(InferShapes, IfMeetsBothBranches) {
  Net then_net;
  then_net.output(then_net.op("Relu", {then_net.input(std::nullopt, DType::undefined)}));
  Net else_net;
  const ValueId captured = else_net.input(std::nullopt, DType::undefined);
  else_net.output(else_net.op("Concat", {captured, captured}, {{"axis", int64_t{1}}}));
  Net n;
  const ValueId condition = n.input(SymbolicShape{}, DType::boolean);
  const ValueId x = n.input(SymbolicShape{kN, 3});
  const ValueId y = n.op("If", {condition, x},
                         {{"then_branch", shared(then_net)},
                          {"else_branch", shared(else_net)},
                          {kCaptures, int64_t{1}}});
  n.output(y);
  n.infer();
  EXPECT_EQ(n.shape(y), "[N, ?]");
  EXPECT_EQ(n.dtype(y), DType::float32);
  verify(n.g);
}

TEST(InferShapes, LoopWidensStatesThatGrow) {
  Net body;
  body.input(SymbolicShape{}, DType::int64);
  const ValueId go_on = body.input(SymbolicShape{}, DType::boolean);
  const ValueId grows = body.input(std::nullopt, DType::undefined);
  const ValueId stays = body.input(std::nullopt, DType::undefined);
  const ValueId step = body.input(std::nullopt, DType::undefined);  // captured
  body.output(body.op("Identity", {go_on}));
  body.output(body.op("Concat", {grows, step}, {{"axis", int64_t{0}}}));
  body.output(body.op("Add", {stays, step}));
  body.output(body.op("Relu", {step}));
  Net n;
  const ValueId x = n.input(SymbolicShape{2, 5});
  const ValueId start = n.input(SymbolicShape{0, 5});
  const NodeId loop = n.node("Loop", {n.scalar(int64_t{3}), kNoId, start, x, x},
                             {{"body", shared(body)}, {kCaptures, int64_t{1}}}, 3);
  for (const ValueId y : n.g.node(loop).outputs) n.output(y);
  n.infer();
  EXPECT_EQ(n.shape(n.g.node(loop).outputs[0]), "[?, 5]");
  EXPECT_EQ(n.shape(n.g.node(loop).outputs[1]), "[2, 5]");
  EXPECT_EQ(n.shape(n.g.node(loop).outputs[2]), "[?, 2, 5]");
  verify(n.g);
}

TEST(InferShapes, LoopWithAGrowingRankEnds) {
  Net body;
  body.input(SymbolicShape{}, DType::int64);
  const ValueId go_on = body.input(SymbolicShape{}, DType::boolean);
  const ValueId state = body.input(std::nullopt, DType::undefined);
  body.output(body.op("Identity", {go_on}));
  body.output(body.op("Unsqueeze", {state, body.ints({0})}));
  Net n;
  const ValueId y = n.op("Loop", {n.scalar(int64_t{3}), kNoId, n.input(SymbolicShape{4})},
                         {{"body", shared(body)}});
  n.infer();
  EXPECT_EQ(n.shape(y), "unranked");
}

TEST(InferShapes, ScanStacksAlongItsAxes) {
  Net body;
  const ValueId state = body.input(std::nullopt, DType::undefined);
  const ValueId slice = body.input(std::nullopt, DType::undefined);
  const ValueId sum = body.op("Add", {state, slice});
  body.output(sum);
  body.output(body.op("Relu", {sum}));
  Net n;
  const NodeId scan = n.node("Scan", {n.input(SymbolicShape{kN}), n.input(SymbolicShape{kN, 7})},
                             {{"body", shared(body)},
                              {"num_scan_inputs", int64_t{1}},
                              {"scan_input_axes", Ints{1}},
                              {"scan_output_axes", Ints{-1}}},
                             2);
  n.infer();
  EXPECT_EQ(n.shape(n.g.node(scan).outputs[0]), "[N]");
  EXPECT_EQ(n.shape(n.g.node(scan).outputs[1]), "[N, 7]");
}

TEST(InferShapes, DeeplyNestedBodiesAreRefused) {
  auto body = std::make_shared<Graph>();
  body->add_output(body->add_initializer("y", Tensor::scalar(1.0f)));
  for (int depth = 0; depth < 100; ++depth) {
    auto outer = std::make_shared<Graph>();
    const ValueId condition = outer->add_initializer("c", Tensor::scalar(true));
    const NodeId id =
        outer->add_node("If", {condition}, {"y"}, {{"then_branch", body}, {"else_branch", body}});
    outer->add_output(outer->node(id).outputs[0]);
    body = outer;
  }
  EXPECT_THROW(infer_shapes(*body), Error);
}

// --- integer operators ------------------------------------------------------------------------

TEST(InferShapes, LoweredOperators) {
  Net n;
  const ValueId x = n.input(SymbolicShape{kN, 4, 6, 6}, DType::uint8);
  const ValueId s = n.scalar(0.5f);
  const ValueId z = n.scalar(uint8_t{3});
  const ValueId w = n.zeros({8, 4, 3, 3}, DType::int8);
  const ValueId conv = n.op("QConv", {x, s, z, w, n.zeros({8}), kNoId, s, z},
                            {{"pads", Ints{1, 1, 1, 1}}}, ops::kDomain);
  const ValueId real = n.op("QConv", {x, s, kNoId, w, s}, {}, ops::kDomain);
  const ValueId sum = n.op("QBinary", {x, s, z, x, s, z, s, n.scalar(int8_t{0})},
                           {{"op", std::string("Add")}}, ops::kDomain);
  const ValueId both =
      n.op("QConcat", {s, z, x, s, z, conv, s, z}, {{"axis", int64_t{1}}}, ops::kDomain);
  const ValueId looked = n.op("QLookup", {x, n.zeros({256}, DType::int8)}, {}, ops::kDomain);
  const ValueId pooled =
      n.op("QGlobalAveragePool", {x, s, z, s, z}, {{"keepdims", int64_t{0}}}, ops::kDomain);
  const ValueId product =
      n.op("QGemm", {pooled, s, z, n.zeros({10, 4}, DType::int8), s, kNoId, s, z},
           {{"transB", int64_t{1}}}, ops::kDomain);
  const ValueId weight_only =
      n.op("WGemm", {n.input(SymbolicShape{kN, 5, 4}), n.zeros({4, 10}, DType::uint4), s}, {},
           ops::kDomain);
  n.infer();
  EXPECT_EQ(n.shape(conv), "[N, 8, 6, 6]");
  EXPECT_EQ(n.dtype(conv), DType::uint8);
  EXPECT_EQ(n.shape(real), "[N, 8, 4, 4]");
  EXPECT_EQ(n.dtype(real), DType::float32);
  EXPECT_EQ(n.dtype(sum), DType::int8);
  EXPECT_EQ(n.shape(both), "[N, 12, 6, 6]");
  EXPECT_EQ(n.dtype(looked), DType::int8);
  EXPECT_EQ(n.shape(pooled), "[N, 4]");
  EXPECT_EQ(n.shape(product), "[N, 10]");
  EXPECT_EQ(n.shape(weight_only), "[N, 5, 10]");
}

TEST(InferShapes, LoweredOperatorsCheckTheirOperands) {
  const auto conv = [](DType x, Dims scale) {
    Net n;
    n.op("QConv",
         {n.input(SymbolicShape{1, 4, 6, 6}, x), n.scalar(0.5f), kNoId,
          n.zeros({8, 4, 3, 3}, DType::int8), n.zeros(std::move(scale))},
         {}, ops::kDomain);
    return n;
  };
  Net good = conv(DType::uint8, {8});
  EXPECT_NO_THROW(good.infer());
  Net real = conv(DType::float32, {8});
  expect_error(real, "expected an integer type");
  Net scales = conv(DType::uint8, {4});
  expect_error(scales, "scales of the weight");
  Net table;
  table.op("QLookup",
           {table.input(SymbolicShape{1}, DType::uint8), table.zeros({255}, DType::uint8)}, {},
           ops::kDomain);
  expect_error(table, "the table");
}

TEST(InferShapes, ThousandsOfNodesAreFast) {
  Net n;
  ValueId x = n.input(SymbolicShape{kN, 8, 16, 16});
  for (int i = 0; i < 1000; ++i) {
    x = n.op("Conv", {x, n.zeros({8, 8, 1, 1})});
    x = n.op("Relu", {x});
    x = n.op("Add", {x, n.floats({1})});
    x = flatten_by_shape(n, x);
    x = n.op("Reshape", {x, n.ints({0, 8, 16, 16})});
  }
  n.output(x);
  const auto start = std::chrono::steady_clock::now();
  n.infer();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(n.shape(x), "[N, 8, 16, 16]");
  EXPECT_LT(seconds.count(), 5);  // 9,000 nodes take some 30 ms; anything quadratic takes minutes
}

}  // namespace
}  // namespace narrow
