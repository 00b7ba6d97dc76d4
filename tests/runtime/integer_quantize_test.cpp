// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>

#include "integer_rig.h"
#include "narrow/quant/round.h"

namespace narrow {
namespace {

using testing::NodeRig;
using testing::random_codes;
using testing::random_floats;

/// saturate(round_half_even(x / scale) + zero_point), NaN as 0.
int64_t code_of(float x, float scale, int64_t zero, DType dtype) {
  float t = x / scale;
  if (std::isnan(t)) t = 0;
  const auto lo = static_cast<float>(integer_min(dtype) - zero);
  const auto hi = static_cast<float>(integer_max(dtype) - zero);
  return round_half_even_int(std::min(std::max(t, lo), hi)) + zero;
}

Tensor hostile_floats(Dims dims, float scale) {
  Tensor x = random_floats(std::move(dims), 3, -200 * scale, 200 * scale);
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> odd = {0.0f,          -0.0f,        inf,          -inf,
                                  NAN,           1e30f,        -1e30f,       1e-40f,
                                  0.5f * scale,  1.5f * scale, 2.5f * scale, -0.5f * scale,
                                  -1.5f * scale, -2.5f * scale};
  const auto data = x.mutable_data<float>();
  for (size_t i = 0; i < odd.size() && i < data.size(); ++i) data[i * 7 % data.size()] = odd[i];
  return x;
}

TEST(IntegerQuantizeStep, PerTensor) {
  for (const Dims& dims : {Dims{1}, Dims{31}, Dims{4, 65}, Dims{2, 3, 5, 6}, Dims{1, 1, 28, 28},
                           Dims{1, 20, 17, 19}, Dims{70000}}) {
    for (const DType dtype : {DType::uint8, DType::int8}) {
      for (const int64_t zero : {int64_t{0}, integer_min(dtype), integer_max(dtype), int64_t{7}}) {
        const Tensor x = hostile_floats(dims, 0.037f);
        std::vector<int64_t> expected;
        for (const float v : x.data<float>()) expected.push_back(code_of(v, 0.037f, zero, dtype));
        NodeRig rig("", "QuantizeLinear");
        rig.activation(x).grid(0.037f, zero, dtype).output(dtype, dims);
        size_t ran = 0;
        for (const OpImpl* row : rig.rows()) {
          if (!rig.refusal(row->name).empty()) continue;
          ++ran;
          EXPECT_EQ(rig.run(row->name).to_ints(), expected) << row->name << to_string(dims);
        }
        EXPECT_GE(ran, 1u);
      }
    }
  }
}

TEST(IntegerQuantizeStep, PerAxis) {
  for (const int64_t axis : {0, 1, 2, -1}) {
    const Dims dims{2, 3, 20, 5};
    const size_t at = normalize_axis(axis, 4);
    const Tensor scale = random_floats({dims[at]}, 9, 0.01f, 0.1f);
    const Tensor zero = random_codes(DType::int8, {dims[at]}, 2);
    const Tensor x = random_floats(dims, 4, -10, 10);
    const int64_t inner = num_elements(dims, at + 1, 4);
    std::vector<int64_t> expected;
    for (int64_t i = 0; i < x.elements(); ++i) {
      const int64_t c = i / inner % dims[at];
      expected.push_back(
          code_of(x.data<float>()[i], scale.data<float>()[c], zero.data<int8_t>()[c], DType::int8));
    }
    NodeRig rig("", "QuantizeLinear");
    rig.attribute("axis", axis).activation(x).constant(scale).constant(zero);
    rig.output(DType::int8, dims);
    for (const OpImpl* row : rig.rows()) {
      if (!rig.refusal(row->name).empty()) continue;
      EXPECT_EQ(rig.run(row->name).to_ints(), expected) << row->name << " axis " << axis;
    }
  }
}

TEST(IntegerQuantizeStep, WritesImagesChannelsLastForConvolutions) {
  Graph g;
  const ValueId x = g.add_input("x", DType::float32, symbolic(Dims{1, 3, 8, 8}));
  const ValueId scale = g.add_initializer("s", Tensor::scalar(0.1f));
  const ValueId zero = g.add_initializer("z", Tensor::scalar<uint8_t>(3));
  const NodeId q = g.add_node("QuantizeLinear", {x, scale, zero}, {"q"});
  g.mutable_value(g.node(q).outputs[0]).dtype = DType::uint8;
  const auto& row =
      *std::find_if(integer_op_impls().begin(), integer_op_impls().end(), [](const OpImpl& r) {
        return std::string_view(r.op) == "QuantizeLinear" && std::string_view(r.name) == "scalar";
      });
  ASSERT_EQ(row.accepts(g, g.node(q), {}), "");
  EXPECT_EQ(row.create(g, g.node(q), {})->output_layout(0), Layout::plain);
  g.add_node("QConv", {g.node(q).outputs[0]}, {"y"}, {}, "narrow");
  const auto step = row.create(g, g.node(q), {});
  EXPECT_EQ(step->input_layout(0), Layout::plain);
  EXPECT_EQ(step->output_layout(0), Layout::channels_last);
}

TEST(IntegerQuantizeStep, Dequantize) {
  for (const DType dtype : {DType::uint8, DType::int8}) {
    for (const Dims& dims : {Dims{5}, Dims{3, 70}, Dims{2, 3, 5, 6}}) {
      const Tensor x = random_codes(dtype, dims, 8);
      NodeRig rig("", "DequantizeLinear");
      rig.activation(x).grid(0.3f, 9, dtype).output(DType::float32, dims);
      std::vector<float> expected;
      for (const int64_t v : x.to_ints()) expected.push_back(static_cast<float>(v - 9) * 0.3f);
      for (const OpImpl* row : rig.rows()) {
        if (!rig.refusal(row->name).empty()) continue;
        EXPECT_EQ(rig.run(row->name).to_floats(), expected) << row->name;
      }
    }
  }
}

TEST(IntegerQuantizeStep, RefusesWithReasons) {
  NodeRig wide("", "QuantizeLinear");
  wide.activation(random_floats({4}, 1)).constant(Tensor::scalar(0.1f)).output(DType::int16, {4});
  EXPECT_EQ(wide.refusal("scalar"), "the output has no 8-bit codes");
  NodeRig blocks("", "DequantizeLinear");
  blocks.attribute("block_size", int64_t{2}).activation(random_codes(DType::int8, {4}, 1));
  blocks.constant(random_floats({2}, 1)).output(DType::float32, {4});
  EXPECT_EQ(blocks.refusal("scalar"), "scales in blocks");
}

}  // namespace
}  // namespace narrow
