// SPDX-License-Identifier: Apache-2.0
// Weights in blocks: shapes, the quantization of what meets them, and the operators that read them.
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/graph/passes/passes.h"

namespace narrow {
namespace {

ValueId decoded(Net& n, ValueId w, const std::string& type, int64_t columns) {
  return n.op("DecodeBlocks", {w}, {{"type", type}, {"columns", columns}}, "narrow");
}
ValueId transposed(Net& n, ValueId x) {
  return n.op("Transpose", {x}, {{"perm", std::vector<int64_t>{1, 0}}});
}
/// x times the transpose of a q4_0 matrix [6, 64].
ValueId product(Net& n, ValueId x, const std::string& type = "q4_0", int64_t row_bytes = 36) {
  return n.op("MatMul",
              {x, transposed(n, decoded(n, n.zeros({6, row_bytes}, DType::uint8), type, 64))});
}

void quantize(Net& n) {
  const std::string_view names[] = {"quantize_activations"};
  run_passes(n.g, names, {.verify_each = true});
}
void absorb(Net& n) {
  n.infer();
  absorb_blocks(n.g, {});
  n.infer();
  verify(n.g);
}
std::vector<std::string> ops(const Net& n) {
  std::vector<std::string> all;
  for (const NodeId id : n.g.nodes()) all.push_back(n.g.node(id).op);
  return all;
}
using Ops = std::vector<std::string>;

TEST(DecodeBlocks, Shapes) {
  Net n;
  const ValueId experts = n.zeros({3, 5, 144}, DType::uint8);
  const ValueId y = decoded(n, experts, "q4_k", 256);
  n.infer();
  EXPECT_EQ(n.shape(y), "[3, 5, 256]");
  EXPECT_EQ(n.dtype(y), DType::float32);
  const auto refused = [](const std::string& type, int64_t columns, DType dtype,
                          const std::string& why) {
    Net bad;
    decoded(bad, bad.zeros({5, 144}, dtype), type, columns);
    expect_error(bad, why);
  };
  refused("q9_k", 256, DType::uint8, "no block type");
  refused("q4_k", 255, DType::uint8, "blocks of 256");
  refused("q4_k", -256, DType::uint8, "columns is -256");
  refused("q4_k", int64_t{1} << 62, DType::uint8, "columns is");
  refused("q4_k", 512, DType::uint8, "bytes of a row");
  refused("q4_k", 256, DType::int8, "blocks are bytes");
}

TEST(DynamicQuantize, Shapes) {
  Net n;
  const ValueId x = n.input(SymbolicShape{Dim::symbol("N"), 70});
  const NodeId q = n.node("DynamicQuantize", {x}, {{"block_size", int64_t{32}}}, 2, "narrow");
  n.infer();
  const std::vector<ValueId> y = n.g.node(q).outputs;
  EXPECT_EQ(n.shape(y[0]), "[N, 70]");
  EXPECT_EQ(n.dtype(y[0]), DType::int8);
  EXPECT_EQ(n.shape(y[1]), "[N, 3]");
  EXPECT_EQ(n.dtype(y[1]), DType::float32);
  Net bad;
  bad.node("DynamicQuantize", {bad.input(SymbolicShape{4})}, {{"block_size", int64_t{0}}}, 2,
           "narrow");
  expect_error(bad, "block_size is 0");
}

TEST(AbsorbBlocks, FloatProduct) {
  Net n;
  n.output(product(n, n.input(SymbolicShape{2, 3, 64})));
  absorb(n);
  EXPECT_EQ(ops(n), Ops{"WBlockGemm"});
  EXPECT_EQ(n.shape(n.g.outputs()[0]), "[2, 3, 6]");
}

TEST(AbsorbBlocks, ProductsOfQuantizedActivations) {
  Net n;
  const ValueId x = n.input(SymbolicShape{2, 3, 64});
  n.output(n.op("Add", {product(n, x), product(n, x)}));
  n.infer();
  quantize(n);
  const Ops all = ops(n);
  EXPECT_EQ(std::count(all.begin(), all.end(), "DynamicQuantize"), 1);
  EXPECT_EQ(std::count(all.begin(), all.end(), "DequantizeLinear"), 1);
  const size_t nodes = n.g.num_nodes();
  quantize(n);
  EXPECT_EQ(n.g.num_nodes(), nodes) << "twice";
  absorb(n);
  EXPECT_EQ(ops(n), (Ops{"BlockGemm", "BlockGemm", "Add"}));
  EXPECT_EQ(n.g.node(n.g.nodes()[0]).inputs[0], x);
  EXPECT_EQ(n.shape(n.g.outputs()[0]), "[2, 3, 6]");
}

TEST(AbsorbBlocks, OtherBlocksOfActivationsAreMultipliedAsFloats) {
  for (const int64_t block : {16, 64}) {
    Net n;
    const ValueId x = n.input(SymbolicShape{3, 64});
    const NodeId q = n.node("DynamicQuantize", {x}, {{"block_size", block}}, 2, "narrow");
    const std::vector<ValueId> parts = n.g.node(q).outputs;
    const ValueId real =
        n.op("DequantizeLinear", parts, {{"axis", int64_t{1}}, {"block_size", block}});
    n.output(product(n, real));
    absorb(n);
    EXPECT_EQ(ops(n), (Ops{"DynamicQuantize", "DequantizeLinear", "WBlockGemm"}));
  }
}

TEST(AbsorbBlocks, WhatIsLeftAlone) {
  Net stored;  // no codes: nothing to multiply as integers
  stored.output(product(stored, stored.input(SymbolicShape{3, 64}), "f16", 128));
  stored.infer();
  quantize(stored);
  EXPECT_EQ(stored.g.num_nodes(), 3u);
  absorb(stored);
  EXPECT_EQ(ops(stored), Ops{"WBlockGemm"});

  Net plain;  // not transposed
  plain.output(
      plain.op("MatMul", {plain.input(SymbolicShape{3, 6}),
                          decoded(plain, plain.zeros({6, 36}, DType::uint8), "q4_0", 64)}));
  plain.infer();
  quantize(plain);
  absorb(plain);
  EXPECT_EQ(ops(plain), (Ops{"DecodeBlocks", "MatMul"}));

  Net run_time;  // weights that are not constant
  const ValueId w = run_time.input(SymbolicShape{6, 36}, DType::uint8);
  run_time.output(run_time.op("MatMul", {run_time.input(SymbolicShape{3, 64}),
                                         transposed(run_time, decoded(run_time, w, "q4_0", 64))}));
  absorb(run_time);
  EXPECT_EQ(run_time.g.num_nodes(), 3u);
}

TEST(AbsorbBlocks, Embedding) {
  Net n;
  const ValueId found = n.op("Gather", {decoded(n, n.zeros({9, 36}, DType::uint8), "q4_0", 64),
                                        n.input(SymbolicShape{2, 3}, DType::int64)});
  n.output(n.op("Neg", {found}));
  absorb(n);
  EXPECT_EQ(ops(n), (Ops{"Gather", "DecodeBlocks", "Neg"}));
  EXPECT_EQ(n.shape(n.g.node(n.g.nodes()[0]).outputs[0]), "[2, 3, 36]");
  EXPECT_EQ(n.shape(n.g.outputs()[0]), "[2, 3, 64]");

  Net along;  // columns cannot be looked up in bytes
  along.output(
      along.op("Neg", {along.op("Gather",
                                {decoded(along, along.zeros({9, 36}, DType::uint8), "q4_0", 64),
                                 along.input(SymbolicShape{2}, DType::int64)},
                                {{"axis", int64_t{1}}})}));
  absorb(along);
  EXPECT_EQ(ops(along), (Ops{"DecodeBlocks", "Gather", "Neg"}));
}

}  // namespace
}  // namespace narrow
