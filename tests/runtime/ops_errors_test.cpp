// SPDX-License-Identifier: Apache-2.0
// Inputs that a model or its data can get wrong at run time: a clear error, no memory touched
// outside of the operands (run_row checks guard bytes).
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string_view>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"
#include "narrow/runtime/ops/float_ops.h"
#include "runtime/ops_cases.h"

namespace narrow::testing {
namespace {

const OpImpl& row_of(const OpCase& c, std::string_view name = "reference") {
  for (const OpImpl& row : float_op_impls()) {
    if (c.domain == row.domain && c.op == row.op && name == row.name) return row;
  }
  throw Error(ErrorCode::not_found, c.op + " has no row " + std::string(name));
}

Tensor ints(std::vector<int64_t> values) {
  return Tensor::vector(values);
}

Tensor floats(Dims dims) {
  Tensor t(DType::float32, dims);
  Rng rng(7);
  for (float& v : t.mutable_data<float>()) v = static_cast<float>(rng.normal());
  return t;
}

struct BadCase {
  const char* message;  // part of what the error says
  OpCase run;
};

std::vector<BadCase> bad_cases() {
  const Tensor x = floats({2, 3});
  const Tensor like_x = floats({2, 3});
  return {
      {"index 3 is outside of 3",
       {"", "", "Gather", {{"axis", int64_t{1}}}, {x, ints({3})}, {floats({2, 1})}}},
      {"index -3 is outside of 2", {"", "", "Gather", {}, {x, ints({-3})}, {floats({1, 3})}}},
      {"index 9 is outside",
       {"",
        "",
        "ScatterND",
        {},
        {x, Tensor::from<int64_t>({9}, {1, 1}), floats({1, 3})},
        {like_x}}},
      {"updates of shape [1, 2] do not fit",
       {"",
        "",
        "ScatterND",
        {},
        {x, Tensor::from<int64_t>({0}, {1, 1}), floats({1, 2})},
        {like_x}}},
      {"do not fit data",
       {"",
        "",
        "GatherElements",
        {},
        {x, Tensor::from<int64_t>({0, 0, 0, 0}, {1, 4})},
        {floats({1, 4})}}},
      {"cannot become [4, 2]", {"", "", "Reshape", {}, {x, ints({4, 2})}, {floats({4, 2})}}},
      {"cannot become [-1, -1]", {"", "", "Reshape", {}, {x, ints({-1, -1})}, {like_x}}},
      {"cannot become [-2, 3]", {"", "", "Reshape", {}, {x, ints({-2, 3})}, {like_x}}},
      {"cannot be squeezed", {"", "", "Squeeze", {}, {x, ints({0})}, {floats({3})}}},
      {"axis 5 is outside", {"", "", "Unsqueeze", {}, {x, ints({5})}, {floats({2, 3, 1})}}},
      {"a step of 0",
       {"", "", "Slice", {}, {x, ints({0}), ints({1}), ints({0}), ints({0})}, {floats({1, 3})}}},
      {"different lengths", {"", "", "Slice", {}, {x, ints({0, 0}), ints({1})}, {floats({1, 3})}}},
      {"planned was [1, 3]", {"", "", "Slice", {}, {x, ints({0}), ints({2})}, {floats({1, 3})}}},
      {"pads for", {"", "", "Pad", {}, {x, ints({1, 1})}, {floats({3, 4})}}},
      {"pads cut more", {"", "", "Pad", {}, {x, ints({-2, 0, -1, 0})}, {floats({0, 3})}}},
      {"integer division by zero",
       {"", "", "Div", {}, {ints({4, 5}), ints({1, 0})}, {ints({0, 0})}}},
      {"integer division by zero",
       {"", "", "Mod", {}, {ints({4, 5}), ints({1, 0})}, {ints({0, 0})}}},
      {"k is 4 of 3",
       {"", "", "TopK", {}, {x, ints({4})}, {floats({2, 4}), Tensor(DType::int64, {2, 4})}}},
      {"do not split an extent of 3",
       {"",
        "",
        "Split",
        {{"axis", int64_t{1}}},
        {x, ints({1, 1})},
        {floats({2, 1}), floats({2, 1})}}},
      {"do not split an extent of 3",
       {"",
        "",
        "Split",
        {{"axis", int64_t{1}}},
        {x, ints({-1, 4})},
        {floats({2, 1}), floats({2, 1})}}},
      {"cannot be joined along axis 0",
       {"", "", "Concat", {{"axis", int64_t{0}}}, {x, floats({2, 4})}, {floats({4, 3})}}},
      {"have no matrix product", {"", "", "MatMul", {}, {x, floats({2, 3})}, {floats({2, 3})}}},
      {"does not fit a tensor",
       {"",
        "",
        "QuantizeLinear",
        {{"axis", int64_t{0}}},
        {x, floats({3})},
        {Tensor(DType::uint8, {2, 3})}}},
      {"region 0 is in image 7",
       {"",
        "",
        "RoiAlign",
        {},
        {floats({1, 1, 3, 3}), floats({1, 4}), ints({7})},
        {floats({1, 1, 1, 1})}}},
      {"a range of",
       {"",
        "",
        "Range",
        {},
        {Tensor::scalar<int64_t>(0), Tensor::scalar<int64_t>(3), Tensor::scalar<int64_t>(0)},
        {ints({0})}}},
      {"3 lengths for 2",
       {"",
        "",
        "ReverseSequence",
        {{"batch_axis", int64_t{0}}, {"time_axis", int64_t{1}}},
        {x, ints({1, 1, 1})},
        {like_x}}},
      {"extents 3 and 2 meet",
       {"", "", "Einsum", {{"equation", std::string("ij,jk->ik")}}, {x, floats({2, 3})}, {like_x}}},
      {"does not divide into blocks",
       {"",
        "",
        "DepthToSpace",
        {{"blocksize", int64_t{2}}},
        {floats({1, 6, 2, 2})},
        {floats({1, 1, 4, 4})}}},
      {"an extent of 3e+38",
       {"", "", "Resize", {}, {x, Tensor(), Tensor::vector<float>({1, 1e38F})}, {like_x}}},
      {"does not broadcast to [2, 3]", {"", "", "Add", {}, {x, floats({2})}, {like_x}}},
      {"does not broadcast to [2, 3]",
       {"", "", "LayerNormalization", {}, {x, floats({4, 3})}, {like_x}}},
      {"2 zero_points for 3 scales",
       {"",
        "",
        "DequantizeLinear",
        {{"axis", int64_t{1}}},
        {Tensor(DType::uint8, {2, 3}), floats({3}), Tensor(DType::uint8, {2})},
        {like_x}}},
      {"a number is missing", {"", "", "CumSum", {}, {x, ints({})}, {like_x}}},
      {"pads [",
       {"", "", "Pad", {}, {x, ints({std::numeric_limits<int64_t>::min(), 0, 0, 0})}, {like_x}}},
      {"pads [",
       {"", "", "Pad", {}, {x, ints({0, std::numeric_limits<int64_t>::max(), 0, 0})}, {like_x}}},
      {"neither scales nor sizes", {"", "", "Resize", {}, {x}, {like_x}}},
  };
}

TEST(OpErrors, SayWhatIsWrong) {
  for (const BadCase& bad : bad_cases()) {
    SCOPED_TRACE(bad.run.op + ": " + bad.message);
    try {
      run_row(row_of(bad.run), bad.run, {});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_NE(error.message().find(bad.message), std::string::npos) << error.message();
    }
  }
}

TEST(OpErrors, SmallestIntegerOverMinusOneDoesNotTrap) {
  const int64_t least = std::numeric_limits<int64_t>::min();
  const OpCase div{"", "", "Div", {}, {ints({least, 6}), ints({-1, -1})}, {ints({0, 0})}};
  EXPECT_EQ(run_row(row_of(div), div, {})[0].to_ints(), (std::vector<int64_t>{least, -6}));
  OpCase mod = div;
  mod.op = "Mod";
  EXPECT_EQ(run_row(row_of(mod), mod, {})[0].to_ints(), (std::vector<int64_t>{0, 0}));
}

TEST(OpErrors, GridSampleSurvivesAnyCoordinate) {
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor grid =
      Tensor::from<float>({std::nanf(""), 0, inf, -inf, 1e30F, -1e30F}, {1, 1, 3, 2});
  for (const char* padding : {"zeros", "border", "reflection"}) {
    const OpCase c{"",
                   "",
                   "GridSample",
                   {{"padding_mode", std::string(padding)}},
                   {floats({1, 1, 4, 5}), grid},
                   {floats({1, 1, 1, 3})}};
    EXPECT_NO_THROW(run_row(row_of(c), c, {})) << padding;
  }
}

TEST(OpErrors, NanIsOneUniqueValueBehindAllOthers) {
  const float nan = std::nanf("");
  const OpCase c{"",
                 "",
                 "Unique",
                 {},
                 {Tensor::vector<float>({nan, 2, nan, -1, 2, nan})},
                 {floats({3}), ints({0, 0, 0}), ints({0, 0, 0, 0, 0, 0}), ints({0, 0, 0})}};
  const auto results = run_row(row_of(c), c, {});
  EXPECT_EQ(difference(Tensor::vector<float>({-1, 2, nan}), results[0], {}), "");
  EXPECT_EQ(results[1].to_ints(), (std::vector<int64_t>{3, 1, 0}));
  EXPECT_EQ(results[2].to_ints(), (std::vector<int64_t>{2, 1, 2, 0, 1, 2}));
  EXPECT_EQ(results[3].to_ints(), (std::vector<int64_t>{1, 2, 3}));
}

TEST(OpErrors, DynamicQuantizeSurvivesNanAndInfinity) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float odd : {std::nanf(""), inf, -inf}) {
    const OpCase c{"",
                   "",
                   "DynamicQuantizeLinear",
                   {},
                   {Tensor::vector<float>({1, odd, -3})},
                   {Tensor(DType::uint8, {3}), Tensor::scalar(0.0F), Tensor::scalar<uint8_t>(0)}};
    EXPECT_NO_THROW(run_row(row_of(c), c, {})) << odd;
  }
}

TEST(OpErrors, UnknownActivationIsRefused) {
  OpCase c{"",
           "narrow",
           "FusedGemm",
           {{"activation", std::string("Sine")}},
           {floats({2, 3}), floats({3, 4})},
           {floats({2, 4})}};
  for (const OpImpl& row : float_op_impls()) {
    if (c.domain != row.domain || c.op != row.op) continue;
    const Graph graph = graph_of(c, Constants::all_but_first);
    const Refusal why = row.accepts(graph, node_of(graph), {});
    EXPECT_FALSE(why.empty()) << row.name;
  }
}

/// Large enough for several blocks.
std::vector<OpCase> threaded_cases() {
  const Tensor x = floats({2, 24, 33, 31});
  const Tensor y = x.clone();
  const OpCase conv{
      "", "", "Conv", {{"pads", std::vector<int64_t>{1, 1, 1, 1}}}, {x, floats({24, 24, 3, 3})},
      {y}};
  OpCase depthwise{"",
                   "",
                   "Conv",
                   {{"pads", std::vector<int64_t>{1, 1, 1, 1}}, {"group", int64_t{24}}},
                   {x, floats({24, 1, 3, 3})},
                   {y}};
  return {
      conv,
      depthwise,
      {"", "", "Sigmoid", {}, {x}, {y}},
      {"", "", "Add", {}, {x, floats({24, 1, 1})}, {y}},
      {"", "", "Softmax", {{"axis", int64_t{1}}}, {x}, {y}},
      {"", "", "ReduceMean", {{"keepdims", int64_t{0}}}, {x, ints({2, 3})}, {floats({2, 24})}},
      {"",
       "",
       "Transpose",
       {{"perm", std::vector<int64_t>{0, 2, 3, 1}}},
       {x},
       {floats({2, 33, 31, 24})}},
      {"",
       "",
       "AveragePool",
       {{"kernel_shape", std::vector<int64_t>{3, 3}}},
       {x},
       {floats({2, 24, 31, 29})}},
      {"", "", "Gemm", {}, {floats({70, 300}), floats({300, 90})}, {floats({70, 90})}},
  };
}

/// Blocks do not depend on threads: portable rows give the same bits on one and on three.
TEST(OpThreads, PortableRowsDoNotDependOnThem) {
  for (const OpCase& c : threaded_cases()) {
    for (const OpImpl& row : float_op_impls()) {
      if (c.domain != row.domain || c.op != row.op || std::string_view(row.name) == "onednn")
        continue;
      const Graph graph = graph_of(c, Constants::all_but_first);
      if (!row.accepts(graph, node_of(graph), {}).empty()) continue;
      const RunVariant variant{Constants::all_but_first, Common::plain, Place::own};
      std::vector<Tensor> one;
      {
        const ThreadLimit limit(1);
        one = run_row(row, c, variant);
      }
      const ThreadLimit limit(3);
      EXPECT_TRUE(identical(one[0], run_row(row, c, variant)[0])) << c.op << " " << row.name;
    }
  }
}

}  // namespace
}  // namespace narrow::testing
