// SPDX-License-Identifier: Apache-2.0
// Keys and values that attention reads as they are kept, and those that it must not.
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

ValueId wide(Net& n, ValueId x) {
  return n.op("Cast", {x}, {{"to", int64_t{1}}});
}

/// Codes [1, 2, 9, 32] of a DequantizeLinear.
struct Codes {
  DType dtype = DType::int8;
  int64_t block = 16;
  int64_t axis = -1;
  bool shifted = false;
};
ValueId dequantized(Net& n, const Codes& c) {
  const ValueId codes = n.input(SymbolicShape{1, 2, 9, 32}, c.dtype);
  std::vector<ValueId> inputs{codes};
  if (c.block > 0) {
    const int64_t blocks = (32 + c.block - 1) / c.block;
    inputs.push_back(c.axis == 2 ? n.input(SymbolicShape{1, 2, 1, 32})
                                 : n.input(SymbolicShape{1, 2, 9, blocks}));
  } else {
    inputs.push_back(n.input(SymbolicShape{}));
  }
  if (c.shifted) inputs.push_back(n.input(n.g.value(inputs[1]).shape, c.dtype));
  Attributes attributes{{"axis", c.axis}};
  if (c.block > 0) attributes["block_size"] = c.block;
  return n.op("DequantizeLinear", inputs, attributes);
}

/// The operator that attends after the pass.
std::string after(Net& n, std::vector<ValueId> inputs) {
  n.output(n.op("Attention", std::move(inputs)));
  n.infer();
  absorb_cache(n.g, {});
  n.infer();
  verify(n.g);
  const Node& node = *n.g.producer(n.g.outputs()[0]);
  return (node.domain.empty() ? "" : node.domain + ".") + node.op;
}

TEST(AbsorbCache, HalfKeysAndValues) {
  const auto attention = [](DType k, DType v) {
    Net n;
    const ValueId q = n.input(SymbolicShape{1, 4, 2, 8});
    const ValueId keys = wide(n, n.input(SymbolicShape{1, 2, 9, 8}, k));
    const ValueId values = wide(n, n.input(SymbolicShape{1, 2, 9, 8}, v));
    return after(n, {q, keys, values});
  };
  EXPECT_EQ(attention(DType::float16, DType::float16), "narrow.Attention");
  EXPECT_EQ(attention(DType::float16, DType::bfloat16), "Attention");
  EXPECT_EQ(attention(DType::float64, DType::float16), "Attention");
}

TEST(AbsorbCache, CodesAndTheirScales) {
  Net n;
  const ValueId q = n.input(SymbolicShape{1, 4, 2, 32});
  const ValueId k = dequantized(n, {});
  const ValueId v = dequantized(n, {.axis = 3});
  const ValueId length = n.input(SymbolicShape{1}, DType::int64);
  EXPECT_EQ(after(n, {q, k, v, kNoId, kNoId, kNoId, length}), "narrow.Attention");
  const Node& node = *n.g.producer(n.g.outputs()[0]);
  EXPECT_EQ(n.g.num_nodes(), 1u);
  ASSERT_EQ(node.inputs.size(), 9u);
  EXPECT_EQ(node.inputs[6], length);
  EXPECT_EQ(n.dtype(node.inputs[1]), DType::int8);
  EXPECT_EQ(n.shape(node.inputs[7]), "[1, 2, 9, 2]");
  EXPECT_EQ(n.shape(node.inputs[8]), "[1, 2, 9, 2]");
  EXPECT_EQ(node.int_or("block_size", 0), 16);
  EXPECT_EQ(n.shape(n.g.outputs()[0]), "[1, 4, 2, 32]");
}

TEST(AbsorbCache, WhatStays) {
  const auto attention = [](const Codes& k, const Codes& v) {
    Net n;
    const ValueId q = n.input(SymbolicShape{1, 4, 2, 32});
    const ValueId keys = dequantized(n, k);
    return after(n, {q, keys, dequantized(n, v)});
  };
  EXPECT_EQ(attention({}, {}), "narrow.Attention");
  EXPECT_EQ(attention({}, {.block = 32}), "Attention");
  EXPECT_EQ(attention({.block = 0}, {.block = 0}), "Attention");
  EXPECT_EQ(attention({.axis = 2}, {.axis = 2}), "Attention");
  EXPECT_EQ(attention({.shifted = true}, {.shifted = true}), "Attention");
  EXPECT_EQ(attention({.dtype = DType::uint8}, {.dtype = DType::uint8}), "Attention");
  Net mixed;
  const ValueId q = mixed.input(SymbolicShape{1, 4, 2, 32});
  const ValueId k = wide(mixed, mixed.input(SymbolicShape{1, 2, 9, 32}, DType::float16));
  EXPECT_EQ(after(mixed, {q, k, dequantized(mixed, {})}), "Attention");
}

TEST(AbsorbCache, ScalesMustFit) {
  const auto attention = [](SymbolicShape scales, int64_t block, DType keys = DType::int8) {
    Net n;
    const ValueId k = n.input(SymbolicShape{1, 2, 9, 32}, keys);
    std::vector<ValueId> inputs{
        n.input(SymbolicShape{1, 4, 2, 32}), k, k, kNoId, kNoId, kNoId, kNoId};
    if (!scales.empty()) inputs.insert(inputs.end(), 2, n.input(scales));
    n.output(n.op("Attention", inputs, {{"block_size", block}}, "narrow"));
    return n;
  };
  attention({1, 2, 9, 2}, 16).infer();
  Net few = attention({1, 2, 9, 1}, 16);
  expect_error(few, "the scales of a key");
  Net other = attention({1, 2, 8, 2}, 16);
  expect_error(other, "codes and their scales");
  Net none = attention({}, 16);
  expect_error(none, "have scales where they are int8");
  Net needless = attention({1, 2, 9, 2}, 16, DType::float16);
  expect_error(needless, "have scales where they are int8");
  Net block = attention({1, 2, 9, 2}, 0);
  expect_error(block, "block_size is 0");
}

}  // namespace
}  // namespace narrow
