// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "integer_rig.h"
#include "narrow/graph/conv_shape.h"
#include "narrow/quant/requantize.h"

namespace narrow {
namespace {

using testing::NodeRig;
using testing::random_codes;

struct PoolCase {
  Dims x = {2, 5, 7, 6};
  std::vector<int64_t> kernel = {2, 2};
  std::vector<int64_t> strides = {2, 2};
  std::vector<int64_t> pads = {0, 0, 0, 0};
  std::vector<int64_t> dilations = {1, 1};
  int64_t ceil_mode = 0;
  int64_t include_pad = 0;
};

void set_attributes(NodeRig& rig, const PoolCase& c, const char* op) {
  rig.attribute("kernel_shape", c.kernel).attribute("strides", c.strides);
  rig.attribute("pads", c.pads).attribute("dilations", c.dilations);
  rig.attribute("ceil_mode", c.ceil_mode);
  if (std::string(op) != "MaxPool") rig.attribute("count_include_pad", c.include_pad);
}

Dims output_dims(const PoolCase& c) {
  Node node;
  node.attributes = {{"kernel_shape", c.kernel},
                     {"strides", c.strides},
                     {"pads", c.pads},
                     {"dilations", c.dilations},
                     {"ceil_mode", c.ceil_mode}};
  Dims y = pool_geometry(node, c.x).output;
  y.insert(y.begin(), {c.x[0], c.x[1]});
  return y;
}

std::vector<PoolCase> cases() {
  std::vector<PoolCase> out(1);
  PoolCase c;
  c.kernel = {3, 3};
  out.push_back(c);
  c.pads = {1, 1, 1, 1};
  out.push_back(c);
  c.strides = {1, 1};
  out.push_back(c);
  c.dilations = {2, 1};
  out.push_back(c);
  c.ceil_mode = 1;
  c.strides = {2, 3};
  out.push_back(c);
  c.x = {1, 70, 9, 9};
  out.push_back(c);
  c.x = {3, 128, 20, 20};
  out.push_back(c);
  c = {{2, 9, 11}, {3}, {2}, {1, 1}, {1}};
  out.push_back(c);
  c = {{1, 4, 5, 6, 7}, {2, 2, 3}, {1, 2, 2}, {0, 1, 1, 0, 0, 1}, {1, 1, 1}};
  out.push_back(c);
  return out;
}

/// The maximum over each window, written out.
Tensor max_by_hand(const Tensor& x, const PoolCase& c, const Dims& y_dims) {
  const std::vector<int64_t> values = x.to_ints();
  const size_t axes = c.kernel.size();
  std::vector<int64_t> out(static_cast<size_t>(num_elements(y_dims)));
  const Dims xs = row_major_strides(c.x);
  const Dims ys = row_major_strides(y_dims);
  const int64_t window = num_elements(c.kernel);
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = integer_min(x.dtype());
    for (int64_t k = 0; k < window; ++k) {
      int64_t rest = k;
      int64_t at = static_cast<int64_t>(i) / ys[1] * xs[1];
      bool inside = true;
      for (size_t a = axes; a-- > 0;) {
        const int64_t tap = rest % c.kernel[a];
        rest /= c.kernel[a];
        const int64_t o = static_cast<int64_t>(i) / ys[a + 2] % y_dims[a + 2];
        const int64_t pos = o * c.strides[a] + tap * c.dilations[a] - c.pads[a];
        inside = inside && pos >= 0 && pos < c.x[a + 2];
        at += pos * xs[a + 2];
      }
      if (inside) out[i] = std::max(out[i], values[at]);
    }
  }
  return Tensor::from_ints(out, x.dtype(), y_dims);
}

TEST(IntegerPoolStep, MaxOfCodes) {
  for (const PoolCase& c : cases()) {
    for (const DType dtype : {DType::uint8, DType::int8}) {
      const Tensor x = random_codes(dtype, c.x, 1);
      const Dims y = output_dims(c);
      NodeRig rig("", "MaxPool");
      set_attributes(rig, c, "MaxPool");
      rig.activation(x).output(dtype, y);
      const Tensor expected = max_by_hand(x, c, y);
      for (const OpImpl* row : rig.rows()) {
        if (!rig.refusal(row->name).empty()) continue;
        EXPECT_TRUE(identical(rig.run(row->name), expected)) << row->name << to_string(c.x);
      }
    }
  }
}

TEST(IntegerPoolStep, AverageOfCodes) {
  for (PoolCase c : cases()) {
    for (const int64_t include : {0, 1}) {
      for (const DType dtype : {DType::uint8, DType::int8}) {
        c.include_pad = include;
        NodeRig rig("narrow", "QAveragePool");
        set_attributes(rig, c, "QAveragePool");
        rig.activation(random_codes(dtype, c.x, 1)).grid(0.3f, 11, dtype);
        rig.grid(0.1f, 40, DType::uint8).output(DType::uint8, output_dims(c));
        rig.check();
      }
    }
  }
}

TEST(IntegerPoolStep, GlobalAverage) {
  for (const Dims& x :
       {Dims{2, 5, 7, 6}, Dims{1, 64, 8, 8}, Dims{3, 17, 4}, Dims{1, 100, 2, 3, 4}}) {
    for (const DType dtype : {DType::uint8, DType::int8}) {
      NodeRig rig("narrow", "QGlobalAveragePool");
      rig.activation(random_codes(dtype, x, 1)).grid(0.3f, 11, dtype);
      Dims y(x.size(), 1);
      y[0] = x[0];
      y[1] = x[1];
      rig.grid(0.25f, -4, DType::int8).attribute("qmin", int64_t{-4}).output(DType::int8, y);
      rig.check();
    }
  }
}

TEST(IntegerPoolStep, AverageByHand) {
  // Codes minus 1: 0 1 2 4, sum 7; 7 * 0.5 / (0.25 * 4) = 3.5, half to even 4, plus 10.
  NodeRig rig("narrow", "QAveragePool");
  rig.attribute("kernel_shape", std::vector<int64_t>{2, 2});
  rig.activation(Tensor::from<uint8_t>({1, 2, 3, 5}, {1, 1, 2, 2})).grid(0.5f, 1, DType::uint8);
  rig.grid(0.25f, 10, DType::uint8).output(DType::uint8, {1, 1, 1, 1});
  EXPECT_EQ(rig.run("reference").item<uint8_t>(), 14);
  rig.check();
}

TEST(IntegerPoolStep, RefusesWithReasons) {
  PoolCase c;
  NodeRig floats("", "MaxPool");
  set_attributes(floats, c, "MaxPool");
  floats.activation(Tensor(DType::float32, c.x)).output(DType::float32, output_dims(c));
  EXPECT_EQ(floats.refusal("scalar"), "the input has no 8-bit codes");
  NodeRig wide("", "MaxPool");
  wide.attribute("kernel_shape", std::vector<int64_t>{17, 17});
  wide.activation(random_codes(DType::uint8, {1, 1, 20, 20}, 1)).output(DType::uint8, {1, 1, 4, 4});
  EXPECT_EQ(wide.refusal("scalar"), "the window is too large");
}

}  // namespace
}  // namespace narrow
