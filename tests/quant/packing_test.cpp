// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

const std::vector<DType> kTypes = {DType::int2, DType::uint2, DType::int4,  DType::uint4,
                                   DType::int8, DType::uint8, DType::int16, DType::uint16};

std::vector<int32_t> random_codes(DType type, size_t count) {
  Rng rng(static_cast<uint64_t>(type));
  std::vector<int32_t> codes(count);
  const int64_t lo = integer_min(type);
  const auto span = static_cast<uint64_t>(integer_max(type) - lo + 1);
  for (int32_t& c : codes) c = static_cast<int32_t>(lo + static_cast<int64_t>(rng.below(span)));
  return codes;
}

TEST(Packing, the_first_element_lies_in_the_low_bits) {
  const Tensor four = pack_codes(std::vector<int32_t>{1, -2, 7}, DType::int4, {3});
  ASSERT_EQ(four.bytes(), 2u);
  EXPECT_EQ(four.raw()[0], std::byte{0xe1});
  EXPECT_EQ(four.raw()[1], std::byte{0x07});
  const Tensor two = pack_codes(std::vector<int32_t>{3, 0, 1, 2, 3}, DType::uint2, {5});
  ASSERT_EQ(two.bytes(), 2u);
  EXPECT_EQ(two.raw()[0], std::byte{0x93});
  EXPECT_EQ(two.raw()[1], std::byte{0x03});
}

TEST(Packing, agrees_with_the_tensors_own_packing_at_every_length) {
  for (const DType type : kTypes) {
    for (size_t count = 0; count < 70; ++count) {
      const std::vector<int32_t> codes = random_codes(type, count);
      const Dims dims = {static_cast<int64_t>(count)};
      const std::vector<int64_t> wide(codes.begin(), codes.end());
      const Tensor packed = pack_codes(codes, type, dims);
      ASSERT_TRUE(identical(packed, Tensor::from_ints(wide, type, dims))) << to_string(type);
      std::vector<int32_t> back(count);
      read_codes(packed, 0, back);
      ASSERT_EQ(back, codes) << to_string(type) << " " << count;
    }
  }
}

TEST(Packing, reads_from_any_element) {
  for (const DType type : kTypes) {
    const std::vector<int32_t> codes = random_codes(type, 101);
    const Tensor packed = pack_codes(codes, type, {101});
    for (int64_t begin = 0; begin <= 101; ++begin) {
      std::vector<int32_t> part(static_cast<size_t>(std::min<int64_t>(37, 101 - begin)));
      read_codes(packed, begin, part);
      ASSERT_TRUE(std::equal(part.begin(), part.end(), codes.begin() + begin)) << to_string(type);
    }
  }
}

TEST(Packing, writes_parts_that_meet_at_bytes) {
  for (const DType type : kTypes) {
    const std::vector<int32_t> codes = random_codes(type, 50);
    Tensor packed(type, {50});
    write_codes(packed, 32, std::span(codes).subspan(32));
    write_codes(packed, 0, std::span(codes).first(32));
    EXPECT_TRUE(identical(packed, pack_codes(codes, type, {50}))) << to_string(type);
  }
}

TEST(Packing, refuses_what_it_cannot_store) {
  EXPECT_THROW(pack_codes(std::vector<int32_t>{8}, DType::int4, {1}), Error);
  EXPECT_THROW(pack_codes(std::vector<int32_t>{-9}, DType::int4, {1}), Error);
  EXPECT_THROW(pack_codes(std::vector<int32_t>{-1}, DType::uint8, {1}), Error);
  EXPECT_THROW(pack_codes(std::vector<int32_t>{1}, DType::int32, {1}), Error);
  EXPECT_THROW(pack_codes(std::vector<int32_t>{1, 2}, DType::int8, {1}), Error);
  Tensor t(DType::int4, {8});
  std::vector<int32_t> two(2);
  EXPECT_THROW(write_codes(t, 1, two), Error);
  EXPECT_THROW(write_codes(t, 8, two), Error);
  EXPECT_THROW(read_codes(t, 7, two), Error);
  EXPECT_THROW(read_codes(t, -1, two), Error);
  EXPECT_THROW(read_codes(Tensor(DType::float32, {8}), 0, two), Error);
}

TEST(Packing, unpacks_to_bytes) {
  for (const DType type : {DType::int2, DType::uint2, DType::int4, DType::uint4}) {
    const std::vector<int32_t> codes = random_codes(type, 70001);
    const Tensor bytes = unpack_to_bytes(pack_codes(codes, type, {70001}));
    EXPECT_EQ(bytes.dtype(), is_signed_integer(type) ? DType::int8 : DType::uint8);
    std::vector<int32_t> back(codes.size());
    read_codes(bytes, 0, back);
    EXPECT_EQ(back, codes);
  }
  const Tensor eight(DType::int8, {4});
  EXPECT_EQ(unpack_to_bytes(eight).raw(), eight.raw());
  EXPECT_THROW(unpack_to_bytes(Tensor(DType::int16, {4})), Error);
}

}  // namespace
}  // namespace narrow
