// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "graph/net.h"
#include "narrow/core/error.h"
#include "narrow/graph/lowered_ops.h"

namespace narrow {
namespace {

void expect_refused(const Graph& g, const std::string& text, ErrorCode code = ErrorCode::internal) {
  try {
    verify(g);
    ADD_FAILURE() << "accepted; expected: " << text;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
    EXPECT_EQ(e.code(), code) << e.what();
  }
}

Net valid_net() {
  Net n;
  const ValueId x = n.input(SymbolicShape{Dim::symbol("N"), 4});
  const ValueId y = n.op("Gemm", {x, n.zeros({4, 3}), n.zeros({3})});
  n.output(n.op("Relu", {y}));
  n.infer();
  return n;
}

TEST(Verify, AcceptsASoundGraph) {
  EXPECT_NO_THROW(verify(valid_net().g));
}

TEST(Verify, UnknownOperators) {
  Net n = valid_net();
  n.op("Foo", {n.g.inputs()[0]});
  expect_refused(n.g, "unknown operator", ErrorCode::unsupported);
}

TEST(Verify, Arity) {
  Net few = valid_net();
  few.op("Add", {few.g.inputs()[0]});
  expect_refused(few.g, "1 inputs, takes 2 to 2");
  Net many = valid_net();
  const ValueId x = many.g.inputs()[0];
  many.op("Relu", {x, x});
  expect_refused(many.g, "2 inputs");
  Net outputs = valid_net();
  outputs.node("Relu", {outputs.g.inputs()[0]}, {}, 2);
  expect_refused(outputs.g, "2 outputs");
}

TEST(Verify, RequiredInputsMayNotBeAbsent) {
  Net n = valid_net();
  n.op("Add", {n.g.inputs()[0], kNoId});
  expect_refused(n.g, "required input 1 is absent");
}

TEST(Verify, ZeroPointsBeforeOtherInputsMayBeAbsent) {
  Net n;
  const ValueId x = n.input(SymbolicShape{1, 2, 3, 3}, DType::uint8);
  const ValueId s = n.scalar(1.0f);
  n.output(n.op("QConv", {x, s, kNoId, n.zeros({2, 2, 1, 1}, DType::int8), s}, {}, ops::kDomain));
  n.infer();
  EXPECT_NO_THROW(verify(n.g));
}

TEST(Verify, OrderMatters) {
  Net n;
  const ValueId x = n.input(SymbolicShape{4});
  const ValueId middle = n.g.add_value("middle", DType::float32, SymbolicShape{4});
  const ValueId y = n.op("Relu", {middle});
  n.g.mutable_value(y).dtype = DType::float32;
  n.g.add_node_onto("Tanh", {x}, {middle});
  expect_refused(n.g, "read before it is written");
  n.g.sort();
  EXPECT_NO_THROW(verify(n.g));
}

TEST(Verify, ValuesWithoutASource) {
  Net n;
  const ValueId orphan = n.g.add_value("orphan", DType::float32, SymbolicShape{4});
  n.op("Relu", {orphan});
  expect_refused(n.g, "'orphan' is read before it is written");
  Net output;
  output.output(output.g.add_value("nothing", DType::float32));
  expect_refused(output.g, "an output that nothing writes");
}

TEST(Verify, AnnotationsMustAgreeWithInference) {
  Net missing = valid_net();
  missing.op("Tanh", {missing.g.inputs()[0]});
  expect_refused(missing.g, "is annotated undefined but is float32");
  Net dtype = valid_net();
  dtype.g.mutable_value(dtype.g.outputs()[0]).dtype = DType::int8;
  expect_refused(dtype.g, "is annotated int8");
  Net shape = valid_net();
  shape.g.mutable_value(shape.g.outputs()[0]).shape = SymbolicShape{Dim(), 4};
  expect_refused(shape.g, "but has shape [N, 3]");
}

TEST(Verify, ConstantsAreWhatTheySay) {
  Net n = valid_net();
  n.g.mutable_value(n.zeros({3})).shape = SymbolicShape{4};
  expect_refused(n.g, "not those of its constant");
}

TEST(Verify, UsesMustMatch) {
  Net n = valid_net();
  n.g.mutable_value(n.g.inputs()[0]).uses.clear();
  expect_refused(n.g, "does not list it as a use");
  Net other = valid_net();
  const ValueId w = other.zeros({2});
  other.g.mutable_value(w).uses.push_back({0, 0});
  expect_refused(other.g, "which reads another value");
}

TEST(Verify, BodiesAreVerifiedToo) {
  Net body;
  body.output(body.g.add_value("nothing", DType::float32));
  Net n;
  const auto branch = std::make_shared<Graph>(std::move(body.g));
  n.op("If", {n.scalar(true)}, {{"then_branch", branch}, {"else_branch", branch}});
  expect_refused(n.g, "an output that nothing writes");
}

}  // namespace
}  // namespace narrow
