// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "narrow/core/cpu.h"
#include "narrow/core/error.h"
#include "narrow/core/progress.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

TEST(Error, ContextGrowsOutwardsAndCodesMapToExits) {
  Error e(ErrorCode::corrupt_data, "bad", "mend it");
  e.add_context("node 'c'");
  e.add_context("m.onnx");
  e.add_context("m.onnx");  // who calls may say it again
  EXPECT_STREQ(e.what(), "m.onnx: node 'c': bad");
  EXPECT_EQ(e.hint(), "mend it");
  EXPECT_EQ(exit_code(ErrorCode::quality_below_target), 1);
  EXPECT_EQ(exit_code(ErrorCode::invalid_argument), 2);
  EXPECT_EQ(exit_code(ErrorCode::corrupt_data), 3);
  EXPECT_EQ(exit_code(ErrorCode::unsupported), 4);
  EXPECT_EQ(exit_code(ErrorCode::internal), 5);
  EXPECT_EQ(exit_code(ErrorCode::cancelled), 130);
}

TEST(Cpu, ScalarIsAlwaysThereAndLast) {
  const auto isas = supported_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.back(), Isa::scalar);
  for (const Isa isa : isas) {
    EXPECT_TRUE(cpu_supports(isa));
    EXPECT_EQ(isa_from_string(to_string(isa)), isa);
  }
  EXPECT_FALSE(isa_from_string("avx9000").has_value());
}

TEST(Cpu, AForcedSetIsTheOneInForce) {
  const Isa before = active_isa();
  for (const Isa isa : supported_isas()) {
    set_isa(isa);
    EXPECT_EQ(active_isa(), isa);
    EXPECT_TRUE(isa_enabled(isa));
    for (const Isa better : supported_isas()) {
      if (better > isa) {
        EXPECT_FALSE(isa_enabled(better));
      }
    }
  }
  set_isa(before);
}

TEST(Cpu, ASetThisCpuLacksIsRefused) {
  for (const Isa isa : {Isa::neon, Isa::neon_i8mm, Isa::avx2}) {
    if (!cpu_supports(isa)) {
      EXPECT_THROW(set_isa(isa), Error);
    }
  }
}

TEST(Rng, TheSequenceIsFixed) {
  // The first outputs of splitmix64 for seed 0, as published with the algorithm.
  Rng rng(0);
  EXPECT_EQ(rng.next(), 0xe220a8397b1dcdafu);
  EXPECT_EQ(rng.next(), 0x6e789e6aa1b965f4u);
}

TEST(Rng, SamplesAreDifferentAndRepeatable) {
  const auto a = sample_indices(100, 30, 5);
  EXPECT_EQ(a, sample_indices(100, 30, 5));
  EXPECT_NE(a, sample_indices(100, 30, 6));
  EXPECT_EQ(std::set<int64_t>(a.begin(), a.end()).size(), 30u);
  EXPECT_EQ(sample_indices(3, 10, 1).size(), 3u);
  EXPECT_TRUE(sample_indices(0, 10, 1).empty());
}

TEST(Rng, NormalHasItsMoments) {
  Rng rng(1);
  double sum = 0;
  double squares = 0;
  constexpr int kCount = 100000;
  for (int i = 0; i < kCount; ++i) {
    const double x = rng.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kCount, 0, 0.02);
  EXPECT_NEAR(squares / kCount, 1, 0.02);
}

TEST(Progress, CancelThrows) {
  std::atomic<bool> cancel{false};
  const Progress progress({}, &cancel);
  progress.check_cancelled();
  cancel = true;
  EXPECT_THROW(progress.check_cancelled(), Error);
}

}  // namespace
}  // namespace narrow
