// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/suggest.h"

#include <gtest/gtest.h>

namespace narrow {
namespace {

const std::vector<std::string> kNames = {"crop", "layout", "letterbox", "resize", "scale"};

TEST(Suggest, DistanceCountsEditsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("crop", "crop"), 0u);
  EXPECT_EQ(edit_distance("crop", "cropp"), 1u);
  EXPECT_EQ(edit_distance("corp", "crop"), 1u);  // neighbours swapped
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(Suggest, NearestNameOnlyWhenItIsNear) {
  EXPECT_EQ(closest_name("reszie", kNames), "resize");
  EXPECT_EQ(closest_name("lettrebox", kNames), "letterbox");
  EXPECT_EQ(closest_name("scal", kNames), "scale");
  EXPECT_EQ(closest_name("quantum", kNames), "");
  EXPECT_EQ(closest_name(std::string(100000, 'x'), kNames), "");
}

TEST(Suggest, HintListsWhatIsKnown) {
  EXPECT_EQ(did_you_mean("corp", kNames),
            "did you mean 'crop'? known: crop, layout, letterbox, resize, scale");
  EXPECT_EQ(did_you_mean("zzzzz", kNames), "known: crop, layout, letterbox, resize, scale");
}

}  // namespace
}  // namespace narrow
