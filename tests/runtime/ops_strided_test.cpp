// SPDX-License-Identifier: Apache-2.0
// The loop nest and strided copies against element-by-element indexing, at sizes around tiles and
// blocks.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {
namespace {

template <class T>
std::vector<T> counted(int64_t n) {
  std::vector<T> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(i * 7 + 1);
  return values;
}

/// dst[index . to] = src[index . from] for every index.
template <class T>
void copy_plainly(std::vector<T>& dst, const Dims& to, const std::vector<T>& src, const Dims& from,
                  const Dims& extents) {
  for (int64_t flat = 0; flat < num_elements(extents); ++flat) {
    int64_t rest = flat;
    int64_t d = 0;
    int64_t s = 0;
    for (size_t i = extents.size(); i-- > 0;) {
      d += rest % extents[i] * to[i];
      s += rest % extents[i] * from[i];
      rest /= extents[i];
    }
    dst[static_cast<size_t>(d)] = src[static_cast<size_t>(s)];
  }
}

template <class T>
void expect_transposed(const Dims& extents, const std::vector<size_t>& order) {
  // src lies with its axes in `order`, outermost first; dst is row-major.
  Dims from(extents.size());
  int64_t stride = 1;
  for (size_t k = order.size(); k-- > 0;) {
    from[order[k]] = stride;
    stride *= extents[order[k]];
  }
  const Dims to = row_major_strides(extents);
  const std::vector<T> src = counted<T>(num_elements(extents));
  std::vector<T> expected(src.size());
  std::vector<T> actual(src.size());
  copy_plainly(expected, to, src, from, extents);
  copy_strided(reinterpret_cast<std::byte*>(actual.data()), to,
               reinterpret_cast<const std::byte*>(src.data()), from, extents, sizeof(T));
  EXPECT_EQ(actual, expected) << to_string(extents);
}

TEST(CopyStrided, MatricesOfAllSizesAroundTheTile) {
  for (const int64_t rows : {1, 3, 4, 5, 15, 16, 17, 33, 300}) {
    for (const int64_t columns : {1, 3, 4, 16, 31, 32, 200}) {
      expect_transposed<uint8_t>({rows, columns}, {1, 0});
      expect_transposed<uint16_t>({rows, columns}, {1, 0});
      expect_transposed<uint32_t>({rows, columns}, {1, 0});
      expect_transposed<uint64_t>({rows, columns}, {1, 0});
    }
  }
}

TEST(CopyStrided, ImagesInBothOrders) {
  for (const int64_t channels : {1, 2, 5, 16, 40}) {
    const Dims dims{2, channels, 9, 13};
    expect_transposed<uint32_t>(dims, {0, 2, 3, 1});
    expect_transposed<uint32_t>(dims, {0, 3, 1, 2});
    expect_transposed<uint32_t>(dims, {3, 2, 1, 0});
    expect_transposed<uint32_t>(dims, {1, 0, 2, 3});
  }
}

TEST(CopyStrided, NegativeAndZeroStrides) {
  const std::vector<uint32_t> src{1, 2, 3, 4, 5};
  std::vector<uint32_t> dst(5);
  const auto copy = [&](const uint32_t* from, int64_t stride) {
    copy_strided(reinterpret_cast<std::byte*>(dst.data()), Dims{1},
                 reinterpret_cast<const std::byte*>(from), Dims{stride}, Dims{5}, 4);
    return dst;
  };
  EXPECT_EQ(copy(src.data() + 4, -1), (std::vector<uint32_t>{5, 4, 3, 2, 1}));
  EXPECT_EQ(copy(src.data() + 2, 0), (std::vector<uint32_t>{3, 3, 3, 3, 3}));
}

TEST(CopyStrided, EveryOtherByteAndNothingBehindTheLast) {
  for (int64_t n = 1; n < 70; ++n) {
    const std::vector<uint8_t> src = counted<uint8_t>(2 * n - 1);  // the sanitizers see its end
    std::vector<uint8_t> expected(static_cast<size_t>(n));
    std::vector<uint8_t> actual(expected.size());
    copy_plainly(expected, {1}, src, {2}, {n});
    copy_strided(reinterpret_cast<std::byte*>(actual.data()), Dims{1},
                 reinterpret_cast<const std::byte*>(src.data()), Dims{2}, Dims{n}, 1);
    EXPECT_EQ(actual, expected) << n;
  }
}

TEST(LoopNest, MergesWhatIsContiguous) {
  const Dims dims{2, 3, 4, 5};
  const Dims plain = row_major_strides(dims);
  EXPECT_EQ(make_nest<1>(dims, {plain}).rank, 1U);
  EXPECT_EQ(make_nest<1>(dims, {plain}).row_length(), 120);
  const Dims channel{0, 1, 0, 0};
  const auto nest = make_nest<2>(dims, {plain, channel});
  EXPECT_EQ(nest.rank, 3U);
  EXPECT_EQ(nest.row_length(), 20);
  EXPECT_EQ(make_nest<1>(Dims{}, {Dims{}}).row_length(), 1);
}

TEST(LoopNest, CoversEveryElementOnceInAnyNumberOfBlocks) {
  for (const Dims& dims : {Dims{3, 5}, Dims{70000}, Dims{300, 301}, Dims{2, 40000}, Dims{0, 4}}) {
    const Dims strides = row_major_strides(dims);
    Dims apart = strides;  // not contiguous: rows cannot merge
    for (int64_t& s : apart) s *= 2;
    std::vector<std::atomic<int>> seen(static_cast<size_t>(num_elements(dims)));
    const auto nest = make_nest<2>(dims, {strides, apart});
    for_rows(nest, [&](const std::array<int64_t, 2>& at, int64_t n) {
      EXPECT_EQ(at[1], 2 * at[0]);
      for (int64_t i = 0; i < n; ++i)
        ++seen[static_cast<size_t>(at[0] + i * nest.row_strides()[0])];
    });
    for (const auto& count : seen) ASSERT_EQ(count, 1) << to_string(dims);
  }
}

TEST(LoopNest, RankIsBounded) {
  const Dims ones(kMaxRank + 1, 1);
  EXPECT_THROW(make_nest<1>(ones, {ones}), Error);
}

TEST(BroadcastStrides, RefuseWhatDoesNotFit) {
  TensorView view{DType::float32, {3, 1}, Layout::plain, nullptr};
  EXPECT_EQ(broadcast_strides(view, Dims{2, 3, 4}), (Dims{0, 1, 0}));
  EXPECT_THROW(broadcast_strides(view, Dims{2, 4}), Error);
  EXPECT_THROW(broadcast_strides(view, Dims{4}), Error);
}

TEST(MemoryStrides, ChannelsLast) {
  EXPECT_EQ(memory_strides(Dims{2, 3, 4, 5}, Layout::channels_last), (Dims{60, 1, 15, 3}));
  EXPECT_EQ(memory_strides(Dims{2, 3, 4}, Layout::channels_last), (Dims{12, 1, 3}));
  EXPECT_EQ(memory_strides(Dims{2, 3}, Layout::channels_last), (Dims{3, 1}));
}

}  // namespace
}  // namespace narrow::ops
