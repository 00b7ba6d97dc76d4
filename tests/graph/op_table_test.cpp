// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "graph/net.h"
#include "narrow/core/error.h"
#include "narrow/graph/lowered_ops.h"
#include "narrow/graph/onnx_types.h"

namespace narrow {
namespace {

TEST(OpTable, RowsAreDistinctAndConsistent) {
  std::set<std::string> seen;
  for (const OpInfo* op : all_ops()) {
    SCOPED_TRACE(op->name);
    EXPECT_TRUE(seen.insert(std::string(op->domain) + "::" + op->name).second);
    EXPECT_EQ(find_op(op->domain, op->name), op);
    EXPECT_GE(op->min_inputs, 0);
    EXPECT_GE(op->min_outputs, 1);
    EXPECT_TRUE(op->max_inputs == -1 || op->max_inputs >= op->min_inputs);
    EXPECT_TRUE(op->max_outputs == -1 || op->max_outputs >= op->min_outputs);
    EXPECT_GE(op->since, 1);
    EXPECT_NE(op->infer, nullptr);
  }
  EXPECT_GT(seen.size(), 180u);
}

TEST(OpTable, DomainsAreKeptApart) {
  ASSERT_NE(find_op("", "Conv"), nullptr);
  EXPECT_EQ(find_op(ops::kDomain, "Conv"), nullptr);
  EXPECT_EQ(find_op("", "conv"), nullptr);
  EXPECT_EQ(find_op("", ""), nullptr);
  EXPECT_NE(find_op("com.microsoft", "QGemm"), find_op(ops::kDomain, ops::kQGemm));
}

TEST(OpTable, EveryIntegerOperatorHasARow) {
  for (const char* name : {ops::kQConv, ops::kQGemm, ops::kQBinary, ops::kQConcat, ops::kQLookup,
                           ops::kQAveragePool, ops::kQGlobalAveragePool, ops::kWConv, ops::kWGemm,
                           ops::kDynamicQConv, ops::kDynamicQGemm}) {
    EXPECT_NE(find_op(ops::kDomain, name), nullptr) << name;
  }
}

TEST(OpTable, UnsupportedNodesAreAllListedBodiesIncluded) {
  Net body;
  body.output(body.op("Inner", {body.input(SymbolicShape{1})}, {}, "com.example"));
  Net n;
  const ValueId x = n.input(SymbolicShape{1});
  const ValueId outer = n.op("Outer", {x});
  const auto branch = std::make_shared<Graph>(std::move(body.g));
  n.op("If", {n.scalar(true), outer},
       {{"then_branch", branch}, {"else_branch", branch}, {kCaptures, int64_t{1}}});
  const std::vector<UnsupportedNode> found = unsupported_nodes(n.g);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].op, "Outer");
  EXPECT_EQ(found[1].op, "com.example::Inner");
  EXPECT_EQ(found[1].node, "Inner_Inner_0");
}

/// A node with every input and output unknown: what inference does on the least it can be given.
TEST(OpTable, InferenceCopesWithUnknownInputs) {
  for (const OpInfo* op : all_ops()) {
    SCOPED_TRACE(std::string(op->domain) + "::" + op->name);
    Net n;
    std::vector<ValueId> inputs;
    const int count = op->max_inputs < 0 ? op->min_inputs + 2 : op->max_inputs;
    for (int i = 0; i < count; ++i) inputs.push_back(n.input(std::nullopt, DType::undefined));
    n.node(op->name, inputs, {}, static_cast<size_t>(op->min_outputs), op->domain);
    try {
      n.infer();
    } catch (const Error& e) {  // a missing attribute or body may be refused, by name
      EXPECT_NE(std::string(e.what()).find(op->name), std::string::npos) << e.what();
    }
  }
}

TEST(OpTable, InferenceCopesWithMissingInputs) {
  for (const OpInfo* op : all_ops()) {
    SCOPED_TRACE(std::string(op->domain) + "::" + op->name);
    for (int count = 0; count <= std::max(op->min_inputs, 1); ++count) {
      for (const bool absent : {false, true}) {
        Net n;
        std::vector<ValueId> inputs;
        for (int i = 0; i < count; ++i) {
          inputs.push_back(absent ? kNoId : n.input(SymbolicShape{2, 3, 4, 5}));
        }
        n.node(op->name, inputs, {}, static_cast<size_t>(op->min_outputs), op->domain);
        try {
          n.infer();
        } catch (const Error& e) {
          EXPECT_NE(std::string(e.what()).find(op->name), std::string::npos) << e.what();
        }
      }
    }
  }
}

TEST(OpTable, InferenceCopesWithAnyRank) {
  for (const OpInfo* op : all_ops()) {
    SCOPED_TRACE(std::string(op->domain) + "::" + op->name);
    const int count = op->max_inputs < 0 ? op->min_inputs + 2 : op->max_inputs;
    for (size_t rank = 0; rank < 6; ++rank) {
      for (const int64_t extent : {int64_t{-1}, int64_t{0}, int64_t{1}, int64_t{3}}) {
        for (const DType dtype : {DType::float32, DType::int64, DType::uint8}) {
          Net n;
          std::vector<ValueId> inputs;
          const SymbolicShape shape(rank, extent < 0 ? Dim() : Dim(extent));
          for (int i = 0; i < count; ++i) inputs.push_back(n.input(shape, dtype));
          n.node(op->name, inputs, {}, static_cast<size_t>(op->min_outputs), op->domain);
          try {
            n.infer();
          } catch (const Error& e) {
            EXPECT_NE(e.code(), ErrorCode::internal) << e.what();
          }
        }
      }
    }
  }
}

TEST(OnnxTypes, NumbersAndTypesAreInverse) {
  for (int64_t number = -1; number < 40; ++number) {
    const DType dtype = dtype_from_onnx(number);
    if (dtype != DType::undefined) {
      EXPECT_EQ(dtype_to_onnx(dtype), number);
    }
  }
  EXPECT_EQ(dtype_from_onnx(1), DType::float32);
  EXPECT_EQ(dtype_from_onnx(22), DType::int4);
  EXPECT_EQ(dtype_to_onnx(DType::undefined), 0);
}

}  // namespace
}  // namespace narrow
