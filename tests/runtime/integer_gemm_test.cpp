// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "integer_rig.h"

namespace narrow {
namespace {

using testing::NodeRig;
using testing::random_codes;
using testing::random_floats;

struct GemmCase {
  Dims a = {3, 20};
  int64_t n = 10;
  bool trans_b = false;
  DType a_type = DType::uint8;
  DType b_type = DType::int8;
  bool zero = false;
  bool float_output = false;
};

NodeRig gemm_rig(const GemmCase& c) {
  NodeRig rig("narrow", "QGemm");
  const int64_t k = c.a.back();
  if (c.trans_b) rig.attribute("transB", int64_t{1});
  rig.activation(random_codes(c.a_type, c.a, 5)).grid(0.07f, 9, c.a_type);
  rig.constant(random_codes(c.b_type, c.trans_b ? Dims{c.n, k} : Dims{k, c.n}, 6));
  rig.constant(random_floats({c.n}, 7, 0.001f, 0.01f));
  if (c.zero) {
    rig.constant(random_codes(c.b_type, {c.n}, 8));
  } else {
    rig.absent();
  }
  if (c.float_output) {
    rig.absent().absent();
  } else {
    rig.grid(0.2f, -4, DType::int8);
  }
  Tensor bias(DType::int32, {c.n});
  for (int64_t i = 0; i < c.n; ++i) {
    bias.mutable_data<int32_t>()[i] = static_cast<int32_t>(700 * i - 2000);
  }
  rig.constant(bias);
  Dims y = c.a;
  y.back() = c.n;
  rig.output(c.float_output ? DType::float32 : DType::int8, y);
  return rig;
}

TEST(IntegerGemmStep, ConstantWeights) {
  for (const Dims& a : {Dims{1, 20}, Dims{3, 17}, Dims{2, 3, 64}, Dims{7, 1}, Dims{33}}) {
    for (const int64_t n : {1, 10, 33}) {
      for (const bool trans_b : {false, true}) {
        for (const DType a_type : {DType::uint8, DType::int8}) {
          for (const DType b_type : {DType::int8, DType::uint8, DType::int4, DType::uint4}) {
            for (const bool zero : {false, true}) {
              gemm_rig({a, n, trans_b, a_type, b_type, zero, zero != trans_b}).check();
            }
          }
        }
      }
    }
  }
}

TEST(IntegerGemmStep, LargeEnoughForThreads) {
  gemm_rig({{300, 130}, 200, false, DType::int8}).check();
  gemm_rig({{1, 4100}, 1100, true, DType::uint8}).check();
}

TEST(IntegerGemmStep, ByHand) {
  NodeRig rig("narrow", "QGemm");
  rig.activation(Tensor::from<int8_t>({1, 2, 3, 4}, {2, 2})).grid(0.5f, 1, DType::int8);
  rig.constant(Tensor::from<int8_t>({1, 2, 3, 4}, {2, 2})).constant(Tensor::scalar(0.5f)).absent();
  rig.absent().absent().output(DType::float32, {2, 2});
  // (a - 1) = [0 1; 2 3]; times b = [3 4; 11 16]; times 0.25.
  const Tensor y = rig.run("reference");
  EXPECT_EQ(y.to_floats(), (std::vector<float>{0.75f, 1.0f, 2.75f, 4.0f}));
  rig.check();
}

TEST(IntegerGemmStep, NoRows) {
  gemm_rig({{0, 20}, 10}).check();
}

struct Activations {
  Dims a, b, y;
};

TEST(IntegerGemmStep, TwoActivationsBroadcast) {
  for (const Activations& s :
       {Activations{{4, 7}, {7, 5}, {4, 5}}, Activations{{2, 3, 4, 7}, {2, 3, 7, 5}, {2, 3, 4, 5}},
        Activations{{2, 1, 4, 8}, {3, 8, 16}, {2, 3, 4, 16}},
        Activations{{4, 7}, {3, 7, 20}, {3, 4, 20}}, Activations{{11, 2, 9}, {9, 33}, {11, 2, 33}},
        Activations{{2, 40, 64}, {2, 64, 70}, {2, 40, 70}},
        Activations{{12, 70, 96}, {12, 96, 70}, {12, 70, 70}}}) {
    for (const DType a : {DType::uint8, DType::int8}) {
      for (const DType b : {DType::uint8, DType::int8}) {
        for (const int64_t zero : {0, 5, 100}) {
          NodeRig rig("narrow", "QGemm");
          rig.activation(random_codes(a, s.a, 1)).grid(0.1f, 5, a);
          rig.activation(random_codes(b, s.b, 2)).grid(0.2f, zero, b);
          if (zero != 5) rig.grid(5.0f, 17, DType::int8);
          rig.output(zero == 5 ? DType::float32 : DType::int8, s.y);
          rig.check();
        }
      }
    }
  }
}

TEST(IntegerGemmStep, ActivationsOfUnknownShape) {
  NodeRig rig("narrow", "QGemm");
  rig.activation(random_codes(DType::int8, {2, 3}, 1), false).grid(0.1f, 0, DType::int8);
  rig.activation(random_codes(DType::int8, {3, 4}, 1), false).grid(0.1f, 0, DType::int8);
  rig.output(DType::float32, {2, 4});
  rig.check();
}

TEST(IntegerGemmStep, SumsOfActivationsThatPassInt32) {
  const int64_t k = 40000;
  NodeRig rig("narrow", "QGemm");
  rig.activation(Tensor::from(std::vector<uint8_t>(k, 255), {1, k})).grid(1.0f, 0, DType::uint8);
  rig.activation(Tensor::from(std::vector<uint8_t>(k, 255), {k, 1})).grid(1.0f, 0, DType::uint8);
  rig.output(DType::float32, {1, 1});
  EXPECT_EQ(rig.run("reference").item<float>(), 255.0f * 255.0f * 40000.0f);
  rig.check();
}

TEST(IntegerGemmStep, CountsWork) {
  NodeRig rig = gemm_rig({{2, 3, 20}, 10});
  const auto step = rig.step("scalar:igemm");
  const std::vector<Dims> in{{2, 3, 20}};
  const std::vector<Dims> out{{2, 3, 10}};
  EXPECT_EQ(step->macs(in, out), 2 * 3 * 20 * 10);
  EXPECT_TRUE(step->integer_macs());
}

}  // namespace
}  // namespace narrow
