// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/idx.h"

#include <zlib.h>

#include "data/data_testing.h"

namespace narrow {
namespace {

using testing::as_bytes;
using testing::bytes_of;
using testing::error_of;
using testing::expect_contains;
using testing::golden;
using testing::TemporaryFolder;

std::string gzipped(const std::string& text) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "x.gz";
  gzFile file = gzopen(path.c_str(), "wb");
  EXPECT_EQ(gzwrite(file, text.data(), static_cast<unsigned>(text.size())),
            static_cast<int>(text.size()));
  gzclose(file);
  return bytes_of(path);
}

Tensor parse(const std::string& bytes) {
  const auto owner = std::make_shared<std::vector<char>>(bytes.begin(), bytes.end());
  return parse_idx(owner, {reinterpret_cast<const std::byte*>(owner->data()), owner->size()}, "t");
}

TEST(Idx, EveryType) {
  EXPECT_TRUE(
      identical(read_idx(golden("u1.idx")), Tensor::from<uint8_t>({3, 2, 1, 0, 1, 2}, {2, 3})));
  EXPECT_TRUE(identical(read_idx(golden("i1.idx")), Tensor::vector<int8_t>({-3, -2, -1, 0, 1, 2})));
  EXPECT_TRUE(identical(read_idx(golden("i2.idx")),
                        Tensor::from<int16_t>({-900, -600, -300, 0, 300, 600}, {3, 2})));
  EXPECT_TRUE(identical(read_idx(golden("i4.idx")),
                        Tensor::vector<int32_t>({-210000, -140000, -70000, 0, 70000, 140000})));
  EXPECT_TRUE(
      identical(read_idx(golden("f4.idx")), Tensor::vector<float>({-1.5f, -1, -0.5f, 0, 0.5f, 1})));
  EXPECT_TRUE(identical(read_idx(golden("f8.idx")),
                        Tensor::from<double>({-.75, -.5, -.25, 0, .25, .5}, {1, 2, 3})));
}

TEST(Idx, GzipIsRecognisedByItsBytes) {
  for (const char* name : {"u1.idx", "i2.idx", "f8.idx"}) {
    const std::string plain = bytes_of(golden(name));
    EXPECT_TRUE(identical(parse(gzipped(plain)), parse(plain))) << name;
  }
}

TEST(Idx, EveryTruncationIsAnError) {
  const std::string plain = bytes_of(golden("f8.idx"));
  const std::string packed = gzipped(plain);
  for (size_t n = 0; n < plain.size(); ++n) {
    EXPECT_THROW((void)parse(plain.substr(0, n)), Error) << n;
  }
  for (size_t n = 0; n < packed.size() - 8; ++n) {
    EXPECT_THROW((void)parse(packed.substr(0, n)), Error) << n;
  }
}

TEST(Idx, WhatFollowsTheValuesIsAnError) {
  const std::string plain = bytes_of(golden("u1.idx")) + "x";
  expect_contains(error_of([&] { (void)parse(plain); }).what(), "1 bytes follow");
  EXPECT_THROW((void)parse(gzipped(plain)), Error);
}

TEST(Idx, HugeClaimsAllocateNothing) {
  for (const int rank : {1, 2, 3, 255}) {
    std::string text = std::string("\0\0\x08", 3) + static_cast<char>(rank);
    for (int i = 0; i < rank; ++i) text += "\x7f\xff\xff\xff";
    EXPECT_EQ(error_of([&] { (void)parse(text); }).code(), ErrorCode::corrupt_data) << rank;
    EXPECT_EQ(error_of([&] { (void)parse(gzipped(text)); }).code(), ErrorCode::corrupt_data);
  }
}

TEST(Idx, OtherFilesAreRefused) {
  expect_contains(error_of([] { (void)parse("PNG and so on"); }).what(), "not an idx file");
  EXPECT_THROW((void)parse(std::string("\0\0\x0f\x01\0\0\0\0", 8)), Error);  // unknown type
  EXPECT_THROW((void)parse(std::string("\0\0\x08\0", 4)), Error);            // rank 0
  EXPECT_THROW((void)parse(""), Error);
}

TEST(Idx, EmptyListsAreLegal) {
  const Tensor t = parse(std::string("\0\0\x08\x02\0\0\0\0\0\0\0\x05", 12));
  EXPECT_EQ(t.dims(), (Dims{0, 5}));
}

}  // namespace
}  // namespace narrow
