// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "integer_rig.h"

namespace narrow {
namespace {

using testing::NodeRig;
using testing::random_codes;

NodeRig binary_rig(const char* op, Dims a, Dims b, DType da, DType db, DType dy) {
  const Dims y = broadcast_dims(a, b);
  NodeRig rig("narrow", "QBinary");
  rig.attribute("op", std::string(op));
  rig.activation(random_codes(da, std::move(a), 1)).grid(0.031f, 5, da);
  rig.activation(random_codes(db, std::move(b), 2)).grid(0.017f, 9, db);
  rig.grid(op[0] == 'M' ? 0.02f : op[0] == 'D' ? 0.1f : 0.04f, 12, dy);
  rig.output(dy, y);
  return rig;
}

TEST(IntegerBinaryStep, SameShapes) {
  for (const char* op : {"Add", "Sub", "Mul", "Div"}) {
    for (const int64_t n : {1, 7, 8, 15, 16, 17, 33, 1000, 70000}) {
      for (const DType da : {DType::uint8, DType::int8}) {
        for (const DType db : {DType::uint8, DType::int8}) {
          binary_rig(op, {n}, {n}, da, db, da).check();
        }
      }
    }
  }
}

TEST(IntegerBinaryStep, Broadcasting) {
  struct Shapes {
    Dims a, b;
  };
  const std::vector<Shapes> shapes = {
      {{2, 5, 3, 4}, {2, 5, 3, 4}},      {{2, 5, 3, 4}, {1, 5, 1, 1}}, {{2, 5, 3, 4}, {2, 5, 1, 1}},
      {{2, 5, 1, 1}, {2, 5, 3, 4}},      {{2, 5, 3, 4}, {1, 1, 3, 4}}, {{2, 5, 3, 4}, {1, 1, 1, 1}},
      {{1, 5, 3, 1}, {2, 1, 1, 4}},      {{1, 1, 1, 1}, {2, 5, 3, 4}}, {{2, 20, 6}, {1, 20, 1}},
      {{1, 1, 2, 3, 4}, {2, 3, 1, 1, 4}}};
  for (const Shapes& s : shapes) {
    for (const char* op : {"Add", "Sub", "Mul"}) {
      SCOPED_TRACE(to_string(s.a) + to_string(s.b));
      binary_rig(op, s.a, s.b, DType::uint8, DType::int8, DType::uint8).check();
    }
  }
}

TEST(IntegerBinaryStep, OperandsOfOtherRanksArePlain) {
  NodeRig rig = binary_rig("Sub", {2, 3, 4, 5}, {4, 1}, DType::int8, DType::int8, DType::int8);
  const Tensor expected = rig.run("reference");
  rig.agnostic = Layout::plain;
  EXPECT_TRUE(identical(rig.run("scalar"), expected));
  NodeRig scalar = binary_rig("Mul", {6}, {}, DType::int8, DType::int8, DType::int8);
  EXPECT_TRUE(identical(scalar.run("scalar"), scalar.run("reference")));
}

TEST(IntegerBinaryStep, ByHand) {
  // (10-2)*0.5/0.25 = 16, (3+1)*1/0.25 = 16; sum 32 + 1.
  NodeRig rig("narrow", "QBinary");
  rig.attribute("op", std::string("Add"));
  rig.activation(Tensor::from<uint8_t>({10}, {1})).grid(0.5f, 2, DType::uint8);
  rig.activation(Tensor::from<int8_t>({3}, {1})).grid(1.0f, -1, DType::int8);
  rig.grid(0.25f, 1, DType::uint8).output(DType::uint8, {1});
  EXPECT_EQ(rig.run("reference").item<uint8_t>(), 33);
  rig.check();
}

TEST(IntegerBinaryStep, DivisionByZeroSaturates) {
  for (const auto& [a, expected] : {std::pair{20, 255}, std::pair{10, 100}, std::pair{0, 0}}) {
    NodeRig rig("narrow", "QBinary");
    rig.attribute("op", std::string("Div"));
    rig.activation(Tensor::from<uint8_t>({static_cast<uint8_t>(a)}, {1}));
    rig.grid(0.5f, 10, DType::uint8);
    rig.activation(Tensor::from<uint8_t>({7}, {1})).grid(0.5f, 7, DType::uint8);
    rig.grid(0.1f, 100, DType::uint8).output(DType::uint8, {1});
    EXPECT_EQ(rig.run("reference").item<uint8_t>(), expected);
    rig.check();
  }
}

TEST(IntegerBinaryStep, OverwritesItsFirstOperandOnlyWhenShapesAgree) {
  const DType t = DType::uint8;
  EXPECT_EQ(binary_rig("Add", {4, 5}, {4, 5}, t, t, t).step("scalar")->aliases(0), 0);
  EXPECT_EQ(binary_rig("Add", {1, 5}, {4, 5}, t, t, t).step("scalar")->aliases(0), -1);
}

TEST(IntegerLookupStep, EveryCode) {
  for (const DType x : {DType::uint8, DType::int8}) {
    for (const DType y : {DType::uint8, DType::int8}) {
      for (const int64_t n : {1, 31, 32, 33, 63, 64, 65, 256, 100000}) {
        std::vector<int64_t> codes(static_cast<size_t>(n));
        for (int64_t i = 0; i < n; ++i) codes[i] = integer_min(x) + i * 7 % 256;
        NodeRig rig("narrow", "QLookup");
        rig.activation(Tensor::from_ints(codes, x, {n}));
        rig.constant(random_codes(y, {256}, 3)).output(y, {n});
        rig.check();
      }
    }
  }
}

TEST(IntegerConcatStep, GridsAndAxes) {
  for (const int64_t axis : {0, 1, 2, 3, -1, -3}) {
    for (const DType dtype : {DType::uint8, DType::int8}) {
      NodeRig rig("narrow", "QConcat");
      const size_t at = normalize_axis(axis, 4);
      Dims y{2, 5, 3, 4};
      y[at] = 2 + 7 + 1;
      rig.attribute("axis", axis).grid(0.1f, 4, dtype);
      int64_t seed = 0;
      for (const int64_t extent : {2, 7, 1}) {
        Dims x{2, 5, 3, 4};
        x[at] = extent;
        rig.activation(random_codes(dtype, x, static_cast<uint32_t>(++seed)));
        if (extent == 7) {
          rig.grid(0.1f, 4, dtype);  // the output's own: copied
        } else {
          rig.grid(0.03f * static_cast<float>(seed), 20, dtype);
        }
      }
      rig.output(dtype, y).check();
    }
  }
}

TEST(IntegerConcatStep, ChannelsOfManyPixels) {
  // Parts of whole words, of odd bytes, of more than are looked up at once.
  for (const std::vector<int64_t>& parts :
       std::vector<std::vector<int64_t>>{{24, 8}, {5, 24, 130}, {2100, 40}, {4100, 3}}) {
    NodeRig rig("narrow", "QConcat");
    rig.attribute("axis", int64_t{1}).grid(0.1f, 4, DType::uint8);
    int64_t sum = 0;
    for (const int64_t channels : parts) {
      sum += channels;
      rig.activation(random_codes(DType::uint8, {1, channels, 13, 17}, 3));
      rig.grid(channels == 8 || channels == 130 ? 0.1f : 0.07f, 4, DType::uint8);
    }
    rig.output(DType::uint8, {1, sum, 13, 17}).check();
  }
}

TEST(IntegerConcatStep, LimitsOfAFusedActivationAlsoBindCopies) {
  NodeRig rig("narrow", "QConcat");
  rig.attribute("axis", int64_t{0}).attribute("qmin", int64_t{4}).grid(0.1f, 4, DType::uint8);
  rig.activation(Tensor::from<uint8_t>({1, 9}, {2})).grid(0.1f, 4, DType::uint8);
  rig.activation(Tensor::from<uint8_t>({0, 8}, {2})).grid(0.2f, 4, DType::uint8);
  rig.output(DType::uint8, {4});
  EXPECT_EQ(rig.run("reference").to_ints(), (std::vector<int64_t>{4, 9, 4, 12}));
  rig.check();
}

}  // namespace
}  // namespace narrow
