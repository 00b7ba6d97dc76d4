// SPDX-License-Identifier: Apache-2.0
// Parameters, codes and dequantized values against numpy and onnxruntime, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>

#include "golden.h"
#include "narrow/quant/quantize.h"

namespace narrow {
namespace {

std::vector<int64_t> as_ints(const Tensor& t) {
  return t.defined() ? t.to_ints() : std::vector<int64_t>();
}

QuantParams params_of(const golden::Case& c, const Dims& shape) {
  QuantParams p;
  p.scheme = golden::scheme_of(c);
  p.scale = Tensor::from_floats(c.floats("scale"), DType::float32, shape);
  p.zero_point = Tensor::from_ints(c.ints("zero_point"), DType::int32, shape);
  return p;
}

TEST(Golden, numpy_agrees_on_parameters_codes_and_values) {
  const auto cases = golden::read("numpy");
  ASSERT_GE(cases.size(), 70u);
  for (const golden::Case& c : cases) {
    const Scheme scheme = golden::scheme_of(c);
    SCOPED_TRACE(scheme.describe());
    const Dims dims = c.ints("dims");
    const Tensor x = Tensor::from_floats(c.floats("x"), DType::float32, dims);
    const QuantParams params = minmax_params(x, scheme);
    EXPECT_EQ(params.scale.dims(), scale_dims(dims, scheme));
    EXPECT_EQ(params.scale.to_floats(), c.floats("scale"));
    EXPECT_EQ(as_ints(params.zero_point), c.ints("zero_point"));
    EXPECT_EQ(params.offset.defined() ? params.offset.to_floats() : std::vector<float>(),
              c.floats("offset"));
    const Tensor codes = quantize(x, params);
    EXPECT_EQ(codes.dtype(), scheme.storage());
    EXPECT_EQ(codes.to_ints(), c.ints("codes"));
    EXPECT_EQ(dequantize(codes, params).to_floats(), c.floats("y"));
    EXPECT_EQ(fake_quant(x, params).to_floats(), c.floats("y"));
  }
}

TEST(Golden, onnxruntime_agrees_on_quantize_and_dequantize_linear) {
  const auto cases = golden::read("onnxruntime");
  ASSERT_EQ(cases.size(), 18u);
  for (const golden::Case& c : cases) {
    const Scheme scheme = golden::scheme_of(c);
    SCOPED_TRACE(scheme.describe());
    const Dims dims = c.ints("dims");
    const QuantParams params = params_of(c, scale_dims(dims, scheme));
    const Tensor x = Tensor::from_floats(c.floats("x"), DType::float32, dims);
    const Tensor codes = quantize(x, params, NonFinite::map);
    EXPECT_EQ(codes.to_ints(), c.ints("codes"));
    EXPECT_EQ(dequantize(codes, params).to_floats(), c.floats("y"));
  }
}

TEST(Golden, parameters_equal_dynamic_quantize_linear) {
  const auto cases = golden::read("dynamic");
  ASSERT_EQ(cases.size(), 20u);
  for (const golden::Case& c : cases) {
    const Tensor x = Tensor::from_floats(c.floats("x"), DType::float32, c.ints("dims"));
    const QuantParams params = minmax_params(x, golden::scheme_of(c));
    EXPECT_EQ(params.scale.to_floats(), c.floats("scale"));
    EXPECT_EQ(params.zero_point.to_ints(), c.ints("zero_point"));
    EXPECT_EQ(quantize(x, params).to_ints(), c.ints("codes"));
  }
}

}  // namespace
}  // namespace narrow
