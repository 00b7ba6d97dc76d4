// SPDX-License-Identifier: Apache-2.0
#include "narrow/evaluate/profile.h"

#include <gtest/gtest.h>

namespace narrow {
namespace {

NodeProfile node(double microseconds, int64_t macs, uint64_t bytes, int64_t runs = 4) {
  NodeProfile profile;
  profile.microseconds = microseconds;
  profile.macs = macs;
  profile.bytes = bytes;
  profile.runs = runs;
  return profile;
}

kernels::MachinePeaks peaks() {
  return {.isa = "avx2", .integer_gops = 100, .float_gops = 20, .read_gb_per_s = 10};
}

TEST(CostSummary, TheLongerBoundBinds) {
  std::vector<NodeProfile> profile = {node(10, 200'000, 10'000), node(10, 20'000, 10'000),
                                      node(20, 0, 400'000)};
  profile[0].integer_macs = true;
  const CostSummary s = summarize_costs(profile, 4, peaks());
  EXPECT_EQ(s.nodes[0].bound, Bound::int8);  // 4 us of multiply-adds, 1 us of bytes
  EXPECT_DOUBLE_EQ(s.nodes[0].gops, 40);
  EXPECT_DOUBLE_EQ(s.nodes[0].gb_per_s, 1);
  EXPECT_DOUBLE_EQ(s.nodes[0].peak_fraction, 0.4);
  EXPECT_EQ(s.nodes[1].bound, Bound::float32);  // 2 us and 1 us
  EXPECT_DOUBLE_EQ(s.nodes[1].peak_fraction, 0.2);
  EXPECT_EQ(s.nodes[2].bound, Bound::memory);
  EXPECT_DOUBLE_EQ(s.nodes[2].gops, 0);
  EXPECT_DOUBLE_EQ(s.nodes[2].peak_fraction, 2) << "from a cache that is nearer";
  EXPECT_DOUBLE_EQ(s.nodes[2].share, 0.5);
  EXPECT_DOUBLE_EQ(s.total.microseconds, 40);
  EXPECT_EQ(s.total.macs, 220'000);
  EXPECT_EQ(s.total.bytes, 420'000u);
  EXPECT_DOUBLE_EQ(s.total.peak_fraction, (4 + 2 + 40) / 40.0);
}

TEST(CostSummary, BodiesCountOnce) {
  // A loop of three turns, each of one node, and what its own count of multiply-adds says.
  std::vector<NodeProfile> profile = {node(30, 1'000, 0), node(8, 1'000, 500, 12)};
  profile[1].depth = 1;
  const CostSummary s = summarize_costs(profile, 4, peaks());
  EXPECT_DOUBLE_EQ(s.nodes[1].microseconds, 24);
  EXPECT_EQ(s.nodes[1].macs, 3'000);
  EXPECT_DOUBLE_EQ(s.nodes[1].share, 0.8);
  EXPECT_DOUBLE_EQ(s.total.microseconds, 30);
  EXPECT_EQ(s.total.macs, 3'000);
  EXPECT_EQ(s.total.bytes, 1'500u);
}

TEST(CostSummary, ReordersThatCopyAreCounted) {
  std::vector<NodeProfile> profile = {node(1, 0, 100), node(3, 0, 100), node(0, 0, 0)};
  profile[1].is_reorder = profile[2].is_reorder = true;
  const CostSummary s = summarize_costs(profile, 4, {});
  EXPECT_EQ(s.reorders, 1);
  EXPECT_DOUBLE_EQ(s.reorder_microseconds, 3);
  EXPECT_DOUBLE_EQ(s.reorder_share, 0.75);
  EXPECT_EQ(s.nodes[1].bound, Bound::none) << "no peak is known";
  EXPECT_EQ(s.nodes[1].peak_fraction, 0);
}

TEST(CostSummary, NothingRan) {
  const std::vector<NodeProfile> profile = {node(0, 10, 10, 0)};
  const CostSummary s = summarize_costs(profile, 0, peaks());
  EXPECT_EQ(s.total.share, 0);
  EXPECT_EQ(s.total.gops, 0);
  EXPECT_EQ(s.nodes[0].peak_fraction, 0);
}

}  // namespace
}  // namespace narrow
