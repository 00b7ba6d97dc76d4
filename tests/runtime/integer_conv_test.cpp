// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "integer_rig.h"
#include "narrow/core/error.h"
#include "narrow/graph/conv_shape.h"

namespace narrow {
namespace {

using testing::NodeRig;
using testing::random_codes;
using testing::random_floats;

struct ConvCase {
  Dims x = {2, 4, 6, 5};
  Dims w = {8, 4, 3, 3};
  DType x_type = DType::uint8;
  DType w_type = DType::int8;
  std::vector<int64_t> pads = {1, 1, 1, 1};
  std::vector<int64_t> strides = {1, 1};
  std::vector<int64_t> dilations = {1, 1};
  int64_t group = 1;
  bool float_output = false;
  bool bias = true;
  bool per_channel = true;
  bool w_zero = false;
  int64_t qmin = 0;  // together with qmax: a fused activation
  int64_t qmax = 0;
  bool add = false;    // QConvAdd
  bool table = false;  // QConvLookup
};

NodeRig conv_rig(const ConvCase& c) {
  NodeRig rig("narrow", c.add ? "QConvAdd" : c.table ? "QConvLookup" : "QConv");
  rig.attribute("pads", c.pads).attribute("strides", c.strides);
  rig.attribute("dilations", c.dilations).attribute("group", c.group);
  Node shape;
  shape.op = "QConv";
  shape.attributes = {
      {"pads", c.pads}, {"strides", c.strides}, {"dilations", c.dilations}, {"group", c.group}};
  Dims y = conv_geometry(shape, c.x, c.w).output;
  y.insert(y.begin(), {c.x[0], c.w[0]});
  const int64_t m = c.w[0];
  rig.activation(random_codes(c.x_type, c.x, 1));
  rig.grid(0.05f, c.x_type == DType::int8 ? -7 : 121, c.x_type);
  rig.constant(random_codes(c.w_type, c.w, 2));
  rig.constant(c.per_channel ? random_floats({m}, 3, 0.001f, 0.02f) : Tensor::scalar(0.01f));
  if (c.w_zero) {
    rig.constant(c.per_channel ? random_codes(c.w_type, {m}, 4)
                               : Tensor::from_ints(std::array<int64_t, 1>{3}, c.w_type, {}));
  } else {
    rig.absent();
  }
  if (c.float_output) {
    rig.absent().absent();
    rig.attribute("min", 0.0f).attribute("max", 6.0f);
  } else {
    rig.grid(0.11f, c.x_type == DType::int8 ? 3 : 100, c.x_type);
  }
  if (c.bias) {
    Tensor b(DType::int32, {m});
    for (int64_t i = 0; i < m; ++i) {
      b.mutable_data<int32_t>()[i] = static_cast<int32_t>(i * 3001 - 9000);
    }
    rig.constant(b);
  } else if (c.add || c.table) {
    rig.absent();
  }
  if (c.table) rig.constant(random_codes(c.x_type, {256}, 6));
  if (c.add) {
    rig.activation(random_codes(c.x_type, y, 5)).grid(0.07f, 20, c.x_type);
    rig.grid(0.11f, c.x_type == DType::int8 ? 3 : 100, c.x_type).grid(0.15f, 9, c.x_type);
    rig.attribute("sum_qmin", int64_t{9});
  }
  if (c.qmin != c.qmax) rig.attribute("qmin", c.qmin).attribute("qmax", c.qmax);
  rig.output(c.float_output ? DType::float32 : c.x_type, y);
  return rig;
}

TEST(IntegerConvStep, KindsOfOperands) {
  for (const DType x : {DType::uint8, DType::int8}) {
    for (const DType w : {DType::int8, DType::uint8, DType::int4, DType::uint4}) {
      for (const bool w_zero : {false, true}) {
        for (const bool per_channel : {false, true}) {
          for (const bool real : {false, true}) {
            ConvCase c;
            c.x_type = x;
            c.w_type = w;
            c.w_zero = w_zero;
            c.per_channel = per_channel;
            c.float_output = real;
            c.bias = per_channel;
            SCOPED_TRACE(std::string(to_string(x)) + " " + to_string(w));
            conv_rig(c).check();
          }
        }
      }
    }
  }
}

TEST(IntegerConvStep, FollowersOfEveryBlock) {
  for (const DType type : {DType::uint8, DType::int8}) {
    for (const int64_t size : {1, 5, 12}) {
      for (const int64_t filters : {3, 16, 160}) {  // whole rows, and columns of them
        for (const int64_t kernel : {1, 3}) {
          ConvCase c;
          c.add = true;
          c.x_type = type;
          c.x = {2, 64, size, size + 1};
          c.w = {filters, 64, kernel, kernel};
          c.pads = std::vector<int64_t>(4, kernel / 2);
          c.bias = filters != 3;
          c.qmax = filters == 16 ? 90 : 0;
          conv_rig(c).check();
          std::swap(c.add, c.table);
          conv_rig(c).check();
        }
      }
    }
  }
  ConvCase grouped;
  grouped.add = true;
  grouped.x = {1, 8, 30, 30};
  grouped.w = {12, 2, 3, 3};
  grouped.group = 4;
  conv_rig(grouped).check();
  std::swap(grouped.add, grouped.table);
  conv_rig(grouped).check();
}

TEST(IntegerConvStep, Shapes) {
  std::vector<ConvCase> cases;
  for (const int64_t channels : {1, 3, 16, 33}) {
    for (const int64_t filters : {1, 16, 20}) {
      ConvCase c;
      c.x = {3, channels, 9, 8};
      c.w = {filters, channels, 3, 3};
      cases.push_back(c);
      c.strides = {2, 2};
      cases.push_back(c);
      c.pads = {0, 2, 1, 0};
      cases.push_back(c);
      c.dilations = {2, 1};
      cases.push_back(c);
      c.w = {filters, channels, 1, 1};
      c.pads = {0, 0, 0, 0};
      cases.push_back(c);
    }
  }
  ConvCase grouped;
  grouped.x = {1, 12, 7, 7};
  grouped.w = {18, 2, 3, 3};
  grouped.group = 6;
  cases.push_back(grouped);
  for (const ConvCase& c : cases) conv_rig(c).check();
}

TEST(IntegerConvStep, DepthwiseIsChosenFirst) {
  ConvCase c;
  c.x = {2, 20, 8, 9};
  c.w = {20, 1, 3, 3};
  c.group = 20;
  NodeRig rig = conv_rig(c);
  rig.check(2);
  if (isa_enabled(Isa::avx2)) {
    EXPECT_EQ(rig.refusal("avx2:depthwise"), "");
    EXPECT_EQ(std::string(rig.rows()[0]->name), "avx512_vnni:depthwise");
  }
  EXPECT_EQ(conv_rig({}).refusal("scalar:depthwise"), "not one group per channel");
}

TEST(IntegerConvStep, OneAndThreeAxes) {
  ConvCase line;
  line.x = {2, 5, 30};
  line.w = {7, 5, 4};
  line.pads = {2, 1};
  line.strides = {3};
  line.dilations = {2};
  conv_rig(line).check();
  ConvCase volume;
  volume.x = {1, 3, 5, 6, 7};
  volume.w = {10, 3, 2, 3, 3};
  volume.pads = {0, 1, 1, 1, 1, 1};
  volume.strides = {1, 2, 1};
  volume.dilations = {1, 1, 2};
  conv_rig(volume).check();
}

TEST(IntegerConvStep, FusedActivationLimitsCodes) {
  ConvCase c;
  c.qmin = 100;
  c.qmax = 180;
  NodeRig rig = conv_rig(c);
  rig.check();
  const Tensor y = rig.run("reference");
  const auto codes = y.data<uint8_t>();
  EXPECT_EQ(*std::min_element(codes.begin(), codes.end()), 100);
  EXPECT_EQ(*std::max_element(codes.begin(), codes.end()), 180);
}

TEST(IntegerConvStep, SamePaddingFollowsTheInput) {
  NodeRig rig("narrow", "QConv");
  rig.attribute("auto_pad", std::string("SAME_UPPER"));
  rig.attribute("strides", std::vector<int64_t>{2, 2});
  rig.activation(random_codes(DType::uint8, {1, 4, 6, 7}, 1)).grid(0.1f, 17, DType::uint8);
  rig.constant(random_codes(DType::int8, {5, 4, 3, 3}, 2)).constant(Tensor::scalar(0.01f)).absent();
  rig.grid(0.2f, 128, DType::uint8).output(DType::uint8, {1, 5, 3, 4});
  rig.check();
}

TEST(IntegerConvStep, ByHand) {
  // (10-3)*2 + (20-3)*(-1) + 5 = 2, times 0.5*0.25/0.125 = 1, plus 7.
  NodeRig rig("narrow", "QConv");
  rig.activation(Tensor::from<uint8_t>({10, 20}, {1, 2, 1, 1})).grid(0.5f, 3, DType::uint8);
  rig.constant(Tensor::from<int8_t>({2, -1}, {1, 2, 1, 1})).constant(Tensor::scalar(0.25f));
  rig.absent().grid(0.125f, 7, DType::uint8).constant(Tensor::from<int32_t>({5}, {1}));
  rig.output(DType::uint8, {1, 1, 1, 1});
  EXPECT_EQ(rig.run("reference").item<uint8_t>(), 9);
  rig.check();
}

TEST(IntegerConvStep, CountsWork) {
  ConvCase c;
  NodeRig rig = conv_rig(c);
  const auto step = rig.step("scalar:igemm");
  const std::vector<Dims> in{c.x};
  const std::vector<Dims> out{{2, 8, 6, 5}};
  EXPECT_EQ(step->macs(in, out), 2 * 8 * 6 * 5 * 4 * 9);
  EXPECT_TRUE(step->integer_macs());
  EXPECT_EQ(step->packed_bytes(), 16u * 36u);
}

TEST(IntegerConvStep, RefusesWithReasons) {
  ConvCase c;
  const Isa before = active_isa();
  set_isa(Isa::scalar);
  if (cpu_supports(Isa::avx2)) {
    EXPECT_EQ(conv_rig(c).refusal("avx2:igemm"), "capped at scalar");
  }
  set_isa(before);
  StepOptions options;
  options.deterministic_reference = true;
  NodeRig rig = conv_rig(c);
  EXPECT_NE(rig.row("scalar:igemm")->accepts(rig.graph(), rig.node(), options), "");
  EXPECT_EQ(rig.row("reference")->accepts(rig.graph(), rig.node(), options), "");
  // A bias at the end of int32 leaves no room for the sums: only 64 bits are exact.
  NodeRig wide("narrow", "QConv");
  wide.activation(Tensor::from<uint8_t>({255, 255}, {1, 2, 1, 1})).grid(1.0f, 0, DType::uint8);
  wide.constant(Tensor::from<int8_t>({127, 127}, {1, 2, 1, 1})).constant(Tensor::scalar(1.0f));
  wide.absent().grid(16777216.0f, 0, DType::uint8);
  wide.constant(Tensor::from<int32_t>({2147483647}, {1})).output(DType::uint8, {1, 1, 1, 1});
  EXPECT_EQ(wide.refusal("scalar:igemm"), "sums may pass int32");
  EXPECT_EQ(wide.run("reference").item<uint8_t>(), 128);
}

TEST(IntegerConvStep, InputThatDoesNotFitThrows) {
  NodeRig rig = conv_rig({});
  const auto step = rig.step("scalar:igemm");
  const std::vector<Dims> in{{2, 3, 6, 5}};
  const std::vector<Dims> out{{2, 8, 6, 5}};
  EXPECT_THROW(step->scratch_bytes(in, out), Error);
}

}  // namespace
}  // namespace narrow
