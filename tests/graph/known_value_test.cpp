// SPDX-License-Identifier: Apache-2.0
#include "narrow/graph/known_value.h"

#include <gtest/gtest.h>

namespace narrow {
namespace {

TEST(KnownValue, TensorsGoInAndOut) {
  const Tensor integers = Tensor::from<int32_t>({-3, 0, 7, 8}, {2, 2});
  const Tensor reals = Tensor::vector<float>({0.5f, -2});
  const Tensor flags = Tensor::from_ints(std::vector<int64_t>{1, 0}, DType::boolean, {2});
  for (const Tensor& t : {integers, reals, flags}) {
    const auto value = KnownValue::from(t);
    ASSERT_TRUE(value.has_value()) << t.describe();
    const auto back = value->tensor();
    ASSERT_TRUE(back.has_value());
    EXPECT_TRUE(identical(*back, t)) << t.describe();
  }
}

TEST(KnownValue, OtherTypesAndLargeTensorsAreNotTracked) {
  EXPECT_FALSE(KnownValue::from(Tensor(DType::uint8, {4})).has_value());
  EXPECT_FALSE(KnownValue::from(Tensor(DType::int64, {KnownValue::kMaxElements + 1})).has_value());
  EXPECT_TRUE(KnownValue::from(Tensor(DType::int64, {KnownValue::kMaxElements})).has_value());
}

TEST(KnownValue, ShapesKeepTheirSymbols) {
  const KnownValue value = KnownValue::from(SymbolicShape{Dim::symbol("N"), 3, Dim()});
  EXPECT_EQ(value.dims, Dims{3});
  EXPECT_TRUE(value.elements[0].is_symbol());
  EXPECT_EQ(value.elements[0].dim(), Dim::symbol("N"));
  EXPECT_EQ(value.elements[1].dim(), Dim(3));
  EXPECT_EQ(value.elements[2].dim(), Dim());
  EXPECT_FALSE(value.tensor().has_value());
  EXPECT_EQ(KnownElement::of(int64_t{-1}).dim(), Dim());  // no dimension
}

TEST(KnownValue, ItemIsForOneInteger) {
  EXPECT_EQ(KnownValue::from(Tensor::scalar(int64_t{5}))->item(), 5);
  EXPECT_FALSE(KnownValue::from(Tensor::scalar(5.0f))->item().has_value());
  EXPECT_FALSE(KnownValue::from(SymbolicShape{2, 3}).item().has_value());
}

}  // namespace
}  // namespace narrow
