// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "integer_rig.h"
#include "narrow/graph/conv_shape.h"

namespace narrow {
namespace {

using testing::NodeRig;
using testing::random_codes;
using testing::random_floats;

/// The largest |got - expected| as a fraction of the bound (k + 2) * eps * sum |x| |w|, which two
/// orders of the same k products may differ by; `magnitude` holds the sums.
double used_fraction(const Tensor& got, const Tensor& expected, const Tensor& magnitude,
                     int64_t k) {
  double used = 0;
  for (int64_t i = 0; i < got.elements(); ++i) {
    const double bound =
        static_cast<double>(k + 2) * 1.2e-7 * static_cast<double>(magnitude.data<float>()[i]);
    const double error = std::abs(static_cast<double>(got.data<float>()[i]) -
                                  static_cast<double>(expected.data<float>()[i]));
    used = std::max(used, bound > 0 ? error / bound : error > 0 ? 1e9 : 0);
  }
  return used;
}

struct GemmCase {
  Dims x = {3, 40};
  int64_t n = 20;
  bool trans_b = false;
  DType w_type = DType::int8;
  int64_t block = 0;
  bool zero = false;
  bool per_tensor = false;
};

enum class Part { value, magnitude, perturbed };

/// The product itself, the same of absolute values, or with one weight changed by one step.
NodeRig gemm_rig(const GemmCase& c, Part part) {
  NodeRig rig("narrow", "WGemm");
  const int64_t k = c.x.back();
  if (c.trans_b) rig.attribute("transB", int64_t{1});
  if (c.block != 0) rig.attribute("block_size", c.block);
  Tensor x = random_floats(c.x, 1, -1, 1);
  x.mutable_data<float>()[0] = 1;  // meets the weight that is perturbed
  const Dims shape = c.trans_b ? Dims{c.n, k} : Dims{k, c.n};
  std::vector<int64_t> codes = random_codes(c.w_type, shape, 2).to_ints();
  const int64_t groups = c.block == 0 ? 1 : (k + c.block - 1) / c.block;
  const Dims scales = c.per_tensor   ? Dims{}
                      : c.block == 0 ? Dims{c.n}
                      : c.trans_b    ? Dims{c.n, groups}
                                     : Dims{groups, c.n};
  Tensor bias = random_floats({c.n}, 4);
  if (part == Part::magnitude) {
    for (float& v : x.mutable_data<float>()) v = std::abs(v);
    for (float& v : bias.mutable_data<float>()) v = std::abs(v);
    // Differences from a zero_point are at most the width of the type.
    const int64_t low = integer_min(c.w_type);
    const int64_t high = integer_max(c.w_type);
    const int64_t width = c.zero ? high - low : std::max(-low, high);
    rig.activation(x).constant(
        Tensor::from_ints(std::vector<int64_t>(codes.size(), width), DType::uint8, shape));
    rig.constant(random_floats(scales, 3, 0.01f, 0.1f)).absent().constant(bias);
  } else {
    if (part == Part::perturbed) codes[0] += codes[0] == integer_max(c.w_type) ? -1 : 1;
    rig.activation(x).constant(Tensor::from_ints(codes, c.w_type, shape));
    rig.constant(random_floats(scales, 3, 0.01f, 0.1f));
    if (c.zero) {
      rig.constant(random_codes(c.w_type, scales, 5));
    } else {
      rig.absent();
    }
    rig.constant(bias);
  }
  Dims y = c.x;
  y.back() = c.n;
  rig.output(DType::float32, y);
  return rig;
}

void check(const GemmCase& c) {
  NodeRig rig = gemm_rig(c, Part::value);
  const Tensor expected = rig.run("reference");
  const Tensor magnitude = gemm_rig(c, Part::magnitude).run("reference");
  const Tensor perturbed = gemm_rig(c, Part::perturbed).run("reference");
  EXPECT_GT(used_fraction(perturbed, expected, magnitude, c.x.back()), 1.0)
      << "the bound cannot see a wrong weight";
  size_t fast = 0;
  for (const OpImpl* row : rig.rows()) {
    if (std::string_view(row->name) == "reference" || !rig.refusal(row->name).empty()) continue;
    ++fast;
    Tensor first;
    for (const int threads : {1, 2}) {
      const ThreadLimit limit(threads);
      const Tensor got = rig.run(row->name);
      EXPECT_LT(used_fraction(got, expected, magnitude, c.x.back()), 1.0) << row->name;
      if (threads == 1) first = got;
      EXPECT_TRUE(identical(got, first)) << "threads change bits";
    }
  }
  EXPECT_GE(fast, 1u) << rig.refusals();
}

TEST(WeightOnlyGemmStep, KindsOfWeights) {
  for (const DType w : {DType::int8, DType::uint8, DType::int4, DType::uint4}) {
    for (const bool trans_b : {false, true}) {
      for (const int64_t block : {0, 16, 32}) {
        for (const bool zero : {false, true}) {
          check({{3, 40}, 20, trans_b, w, block, zero});
        }
      }
      check({{3, 40}, 20, trans_b, w, 0, true, true});
    }
  }
}

TEST(WeightOnlyGemmStep, Shapes) {
  for (const int64_t m : {1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 64, 65, 130}) {
    for (const int64_t n : {1, 16, 37}) {
      check({{m, 33}, n, false, DType::int4, 8});
      check({{m, 300}, n, true, DType::int8});
    }
  }
  check({{2, 3, 5, 16}, 8});
}

struct ConvCase {
  Dims x;
  Dims w;
  int64_t group = 1;
  int64_t block = 0;
  DType w_type = DType::int8;
  std::vector<int64_t> strides = {1, 1};
};

TEST(WeightOnlyConvStep, CloseToTheReference) {
  const std::vector<ConvCase> cases = {{{2, 3, 7, 6}, {8, 3, 3, 3}},
                                       {{1, 5, 12, 11}, {20, 5, 3, 3}, 1, 8, DType::int4},
                                       {{1, 5, 12, 11}, {20, 5, 3, 3}, 1, 16, DType::uint8, {2, 2}},
                                       {{2, 6, 7, 7}, {12, 3, 3, 3}, 2, 0, DType::uint4},
                                       {{2, 16, 9, 9}, {24, 16, 1, 1}}};
  for (const ConvCase& c : cases) {
    const int64_t k = num_elements(c.w, 1, c.w.size());
    const int64_t groups = c.block == 0 ? 1 : (k + c.block - 1) / c.block;
    const auto rig_of = [&](bool magnitude) {
      NodeRig rig("narrow", "WConv");
      const std::vector<int64_t> pads{1, 0, 1, 2};
      rig.attribute("group", c.group).attribute("pads", pads).attribute("strides", c.strides);
      if (c.block != 0) rig.attribute("block_size", c.block);
      Node shape;
      shape.attributes = {{"pads", pads}, {"group", c.group}, {"strides", c.strides}};
      Dims y = conv_geometry(shape, c.x, c.w).output;
      y.insert(y.begin(), {c.x[0], c.w[0]});
      Tensor x = random_floats(c.x, 1);
      if (magnitude) {
        for (float& v : x.mutable_data<float>()) v = std::abs(v);
      }
      const int64_t width = integer_max(c.w_type) - integer_min(c.w_type);
      rig.activation(x);
      rig.constant(magnitude ? Tensor::from_ints(std::vector<int64_t>(num_elements(c.w), width),
                                                 DType::uint8, c.w)
                             : random_codes(c.w_type, c.w, 2));
      const Dims scales = c.block == 0 ? Dims{c.w[0]} : Dims{c.w[0], groups};
      rig.constant(random_floats(scales, 3, 0.01f, 0.1f));
      if (magnitude) {
        rig.absent();
      } else {
        rig.constant(random_codes(c.w_type, scales, 4));
      }
      rig.constant(random_floats({c.w[0]}, 5, 0.1f, 1)).output(DType::float32, y);
      return rig;
    };
    NodeRig rig = rig_of(false);
    const Tensor expected = rig.run("reference");
    const Tensor magnitude = rig_of(true).run("reference");
    for (const OpImpl* row : rig.rows()) {
      if (!rig.refusal(row->name).empty()) continue;
      EXPECT_LT(used_fraction(rig.run(row->name), expected, magnitude, k), 1.0)
          << row->name << to_string(c.w);
    }
  }
}

TEST(WeightOnlyGemmStep, ByHand) {
  // Two groups of two: (2-1)*0.5 and (4-2)*0.25.
  NodeRig rig("narrow", "WGemm");
  rig.attribute("block_size", int64_t{2}).attribute("transB", int64_t{1});
  rig.activation(Tensor::from<float>({1, 2, 3, 4}, {1, 4}));
  rig.constant(Tensor::from<int8_t>({2, 1, 4, 2}, {1, 4}));
  rig.constant(Tensor::from<float>({0.5f, 0.25f}, {1, 2}));
  rig.constant(Tensor::from<int8_t>({1, 2}, {1, 2})).constant(Tensor::from<float>({10}, {1}));
  rig.output(DType::float32, {1, 1});
  for (const OpImpl* row : rig.rows()) {
    if (!rig.refusal(row->name).empty()) continue;
    EXPECT_EQ(rig.run(row->name).item<float>(), 0.5f + 1.5f + 10.0f) << row->name;
  }
}

TEST(WeightOnlyGemmStep, HoldsFourBitsInFour) {
  const auto bytes_of = [](DType type) {
    return gemm_rig({{1, 4096}, 64, false, type}, Part::value).step("scalar")->packed_bytes();
  };
  EXPECT_LT(bytes_of(DType::int4), 4096u * 64u / 2u + 2048u);
  EXPECT_LT(bytes_of(DType::int8), 4096u * 64u + 2048u);
  EXPECT_FALSE(gemm_rig({}, Part::value).step("scalar")->integer_macs());
}

TEST(WeightOnlyGemmStep, RefusesWithReasons) {
  NodeRig rig("narrow", "WGemm");
  rig.attribute("block_size", int64_t{2}).activation(random_floats({1, 4}, 1));
  rig.constant(random_codes(DType::int8, {4, 3}, 1)).constant(random_floats({3}, 1));
  rig.output(DType::float32, {1, 3});
  EXPECT_EQ(rig.refusal("scalar"), "input 2 is float32[3], not one number for each of 6 groups");
}

}  // namespace
}  // namespace narrow
