// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/deflate.h"

#include <gtest/gtest.h>

#include <vector>

#include "narrow/core/rng.h"

namespace narrow {
namespace {

TEST(DeflateTest, MeasuresWhatBytesHold) {
  constexpr size_t kBytes = 3 * 1000 * 1000;  // several pieces
  std::vector<std::byte> bytes(kBytes);
  EXPECT_LT(deflated_bytes(bytes), kBytes / 500);
  Rng rng(1);
  for (std::byte& b : bytes) b = static_cast<std::byte>(rng.next() & 255);
  EXPECT_NEAR(static_cast<double>(deflated_bytes(bytes)), kBytes, 0.01 * kBytes);
  // Four values of 256 hold two bits of eight.
  for (std::byte& b : bytes) b = static_cast<std::byte>(rng.next() & 3);
  EXPECT_NEAR(static_cast<double>(deflated_bytes(bytes)), kBytes / 4.0, 0.05 * kBytes);
  EXPECT_EQ(deflated_bytes({}), 8u);  // header, an empty block, a checksum
}

}  // namespace
}  // namespace narrow
