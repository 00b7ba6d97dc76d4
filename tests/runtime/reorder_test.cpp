// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/reorder.h"

#include <gtest/gtest.h>

#include <cstring>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

TensorView view(Tensor& t, Layout layout) {
  return {t.dtype(), t.dims(), layout, t.mutable_raw()};
}

Tensor random_bytes(DType dtype, Dims dims) {
  Tensor t(dtype, std::move(dims));
  Rng rng(7);
  for (size_t i = 0; i < t.bytes(); ++i) t.mutable_raw()[i] = static_cast<std::byte>(rng.next());
  return t;
}

/// The definition, element by element: logical (n, c, p) stands at (n, p, c).
void expect_channels_last(const Tensor& plain, const Tensor& last) {
  const size_t size = static_cast<size_t>(bits(plain.dtype())) / 8;
  const int64_t n = plain.dims()[0];
  const int64_t c = plain.dims()[1];
  const int64_t p = num_elements(plain.dims(), 2, plain.rank());
  for (int64_t i = 0; i < n * c * p; ++i) {
    const int64_t image = i / (c * p);
    const int64_t channel = i / p % c;
    const int64_t pixel = i % p;
    const int64_t there = (image * p + pixel) * c + channel;
    ASSERT_EQ(std::memcmp(plain.raw() + i * size, last.raw() + there * size, size), 0)
        << plain.describe() << " element " << i;
  }
}

class ReorderTest : public testing::TestWithParam<DType> {};

TEST_P(ReorderTest, FollowsTheDefinitionAndBack) {
  const std::vector<int64_t> channels = {1, 2, 3, 4, 7, 8, 15, 16, 17, 32, 40, 64, 67};
  const std::vector<int64_t> sizes = {1, 2, 3, 5, 8, 13};
  for (const int64_t c : channels) {
    for (const int64_t s : sizes) {
      Tensor plain = random_bytes(GetParam(), {2, c, s, s + 1});
      Tensor last = to_layout(plain, Layout::channels_last);
      expect_channels_last(plain, last);
      Tensor back(plain.dtype(), plain.dims());
      reorder(view(last, Layout::channels_last), view(back, Layout::plain));
      EXPECT_TRUE(identical(plain, back)) << plain.describe();
    }
  }
}

TEST_P(ReorderTest, RanksThreeAndFive) {
  for (const Dims& dims : {Dims{3, 19, 33}, Dims{2, 18, 3, 4, 5}}) {
    Tensor plain = random_bytes(GetParam(), dims);
    expect_channels_last(plain, to_layout(plain, Layout::channels_last));
  }
}

TEST_P(ReorderTest, SameForEveryNumberOfThreads) {
  Tensor plain = random_bytes(GetParam(), {3, 67, 129, 31});
  Tensor expected;
  for (const int threads : {1, 2, 5}) {
    const ThreadLimit limit(threads);
    const Tensor last = to_layout(plain, Layout::channels_last);
    if (!expected.defined()) expected = last;
    EXPECT_TRUE(identical(last, expected)) << threads;
  }
  expect_channels_last(plain, expected);
}

INSTANTIATE_TEST_SUITE_P(ElementSizes, ReorderTest,
                         testing::Values(DType::int8, DType::float16, DType::float32, DType::int64),
                         [](const auto& p) { return std::string(to_string(p.param)); });

TEST(Reorder, KnowsWhenNothingMoves) {
  EXPECT_TRUE(same_memory_order(Dims{4, 5}));
  EXPECT_TRUE(same_memory_order(Dims{4, 1, 6, 7}));
  EXPECT_TRUE(same_memory_order(Dims{4, 9, 1, 1}));
  EXPECT_TRUE(same_memory_order(Dims{4, 9, 0, 3}));
  EXPECT_TRUE(same_memory_order(Dims{0, 9, 2, 3}));
  EXPECT_FALSE(same_memory_order(Dims{1, 2, 1, 2}));
}

TEST(Reorder, CopiesEmptyAndEqualLayouts) {
  Tensor empty(DType::float32, {2, 3, 0, 4});
  EXPECT_TRUE(identical(to_layout(empty, Layout::channels_last), empty));
  Tensor plain = random_bytes(DType::int16, {2, 3, 4, 5});
  EXPECT_TRUE(identical(to_layout(plain, Layout::plain), plain));
}

TEST(Reorder, RefusesPackedElements) {
  Tensor codes(DType::int4, {1, 4, 3, 3});
  EXPECT_THROW(to_layout(codes, Layout::channels_last), Error);
}

}  // namespace
}  // namespace narrow
