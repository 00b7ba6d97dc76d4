// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "narrow/core/error.h"

namespace narrow {
namespace {

TEST(Tensor, OwnedStorageIsZeroAndShared) {
  Tensor a(DType::float32, {2, 3});
  EXPECT_EQ(a.elements(), 6);
  EXPECT_EQ(a.bytes(), 24u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.raw()) % 64, 0u);
  for (const float v : a.data<float>()) EXPECT_EQ(v, 0.0f);
  Tensor b = a;
  a.mutable_data<float>()[4] = 7;
  EXPECT_EQ(b.data<float>()[4], 7.0f);
  Tensor c = a.clone();
  a.mutable_data<float>()[4] = 8;
  EXPECT_EQ(c.data<float>()[4], 7.0f);
}

TEST(Tensor, SubByteTypesArePackedFirstElementLow) {
  const std::vector<int64_t> values = {-8, 7, -1, 3, 0};
  const Tensor t = Tensor::from_ints(values, DType::int4, {5});
  EXPECT_EQ(t.bytes(), 3u);
  EXPECT_EQ(static_cast<int>(t.raw()[0]), 0x78);
  EXPECT_EQ(t.to_ints(), values);
  const std::vector<int64_t> two = {3, 0, 2, 1, 1};
  const Tensor u = Tensor::from_ints(two, DType::uint2, {5});
  EXPECT_EQ(u.bytes(), 2u);
  EXPECT_EQ(u.to_ints(), two);
}

TEST(Tensor, EveryIntegerTypeKeepsItsExtremes) {
  for (const DType d : {DType::int2, DType::uint2, DType::int4, DType::uint4, DType::int8,
                        DType::uint8, DType::int16, DType::uint16, DType::int32, DType::uint32}) {
    const std::vector<int64_t> values = {integer_min(d), integer_max(d), 0, 1};
    EXPECT_EQ(Tensor::from_ints(values, d, {4}).to_ints(), values) << to_string(d);
    const std::vector<int64_t> outside = {integer_max(d) + 1};
    EXPECT_THROW(Tensor::from_ints(outside, d, {1}), Error) << to_string(d);
  }
}

TEST(Tensor, WrongUseIsRefused) {
  const Tensor t(DType::float32, {2});
  EXPECT_THROW((void)t.data<int8_t>(), Error);
  EXPECT_THROW((void)t.to_ints(), Error);
  EXPECT_THROW((void)t.reshaped({3}), Error);
  EXPECT_THROW(Tensor(DType::float32, {-1}), Error);
  EXPECT_THROW(Tensor(DType::float32, {int64_t{1} << 40, int64_t{1} << 40}), Error);
  const float x[2] = {1, 2};
  Tensor v = Tensor::view(nullptr, x, 8, DType::float32, {2});
  EXPECT_THROW((void)v.mutable_raw(), Error);
  EXPECT_THROW(Tensor::view(nullptr, x, 8, DType::float32, {3}), Error);
}

TEST(Tensor, HugeAllocationIsAnErrorNotACrash) {
  try {
    Tensor t(DType::float32, {int64_t{1} << 55});
    FAIL() << "allocated " << t.bytes();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::resource_exhausted);
  }
}

TEST(Tensor, PackedBytesDoNotOverflow) {
  constexpr int64_t kMost = int64_t{1} << 62;  // what num_elements() allows
  EXPECT_EQ(packed_bytes(DType::int4, kMost), uint64_t{1} << 61);
  EXPECT_EQ(packed_bytes(DType::uint2, kMost - 1), uint64_t{1} << 60);
  EXPECT_EQ(packed_bytes(DType::int4, 3), 2u);
}

TEST(Shape, BroadcastingFollowsNumpy) {
  EXPECT_EQ(broadcast_dims(Dims{2, 1, 3}, Dims{4, 1}), (Dims{2, 4, 3}));
  EXPECT_EQ(broadcast_dims(Dims{}, Dims{5}), (Dims{5}));
  EXPECT_EQ(broadcast_dims(Dims{0}, Dims{1}), (Dims{0}));
  EXPECT_THROW(broadcast_dims(Dims{2}, Dims{3}), Error);
  EXPECT_EQ(normalize_axis(-1, 4), 3);
  EXPECT_THROW(normalize_axis(4, 4), Error);
}

TEST(Tensor, MisalignedBytesAreCopied) {
  const auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3});
  const auto* bytes = reinterpret_cast<const std::byte*>(owner->data());
  const Tensor aligned = Tensor::view_or_copy(owner, bytes + 4, 8, DType::float32, {2});
  EXPECT_EQ(aligned.raw(), bytes + 4);
  EXPECT_FALSE(aligned.writable());
  const Tensor copied = Tensor::view_or_copy(owner, bytes + 2, 8, DType::float32, {2});
  EXPECT_NE(copied.raw(), bytes + 2);
  EXPECT_EQ(std::memcmp(copied.raw(), bytes + 2, 8), 0);
  EXPECT_EQ(Tensor::view_or_copy(owner, bytes + 1, 3, DType::int8, {3}).raw(), bytes + 1);
  EXPECT_THROW(Tensor::view_or_copy(owner, bytes + 1, 7, DType::float32, {2}), Error);
}

}  // namespace
}  // namespace narrow
