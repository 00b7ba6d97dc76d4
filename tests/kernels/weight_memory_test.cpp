// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/weight_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "narrow/core/error.h"

namespace narrow::kernels {
namespace {

TEST(WeightMemory, PiecesAreApartAndAligned) {
  constexpr size_t kSizes[] = {1, 63, 64, 65, 5000, size_t{3} << 20, size_t{9} << 20};
  std::vector<std::pair<std::shared_ptr<uint8_t>, size_t>> pieces;
  for (int round = 0; round < 8; ++round) {  // more than one chunk
    for (const size_t size : kSizes) {
      const std::shared_ptr<uint8_t> piece = weight_memory(size);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(piece.get()) % 64, 0U);
      std::fill_n(piece.get(), size, uint8_t{0xff});
      pieces.emplace_back(piece, size);
    }
  }
  std::sort(pieces.begin(), pieces.end());
  for (size_t i = 1; i < pieces.size(); ++i) {
    EXPECT_LE(pieces[i - 1].first.get() + pieces[i - 1].second, pieces[i].first.get());
  }
}

TEST(WeightMemory, AChunkLivesAsLongAsAPiece) {
  std::shared_ptr<uint8_t> last;
  for (int i = 0; i < 50; ++i) {
    last = weight_memory(size_t{1} << 20);
    std::fill_n(last.get(), size_t{1} << 20, uint8_t{7});
  }
  EXPECT_TRUE(
      std::all_of(last.get(), last.get() + (size_t{1} << 20), [](uint8_t b) { return b == 7; }));
}

TEST(WeightMemory, MoreThanThereIsIsRefused) {
  EXPECT_THROW(weight_memory(std::numeric_limits<size_t>::max() - 100), Error);
  EXPECT_THROW(weight_memory(size_t{1} << 60), Error);
}

}  // namespace
}  // namespace narrow::kernels
