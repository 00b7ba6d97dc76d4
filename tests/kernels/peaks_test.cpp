// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/peaks.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/kernels/kernel_set.h"

namespace narrow::kernels {
namespace {

// Rates depend on the machine and its load: that they are there is all that is asked.
constexpr PeakOptions kShort = {.threads = 1, .seconds = 0};

TEST(Peaks, EveryLoopOfThisCpuHasARate) {
  std::set<std::pair<std::string, PeakNumbers>> seen;
  for (const PeakLoop& loop : peak_loops()) {
    SCOPED_TRACE(loop.isa_name);
    EXPECT_TRUE(seen.emplace(loop.isa_name, loop.numbers).second);
    if (can_run(loop)) {
      EXPECT_GT(measure_multiply(loop, kShort), 0);
    } else {
      EXPECT_THROW(measure_multiply(loop, kShort), Error);
    }
  }
}

TEST(Peaks, ReadingAnyNumberOfBytes) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{24} << 10, kMemoryBytes / 2 + 1}) {
    for (const int threads : {1, 3}) {
      EXPECT_GT(measure_read(bytes, {.threads = threads, .seconds = 0}), 0) << bytes;
    }
  }
}

TEST(Peaks, OfTheKernelsInForce) {
  const MachinePeaks peaks = measure_peaks(1 << 20, kShort);
  EXPECT_EQ(peaks.threads, 1);
  EXPECT_EQ(peaks.read_bytes, size_t{1} << 20);
  EXPECT_GT(peaks.read_gb_per_s, 0);
  EXPECT_EQ(peaks.integer_gops > 0, !peaks.isa.empty());
  EXPECT_EQ(peaks.float_gops > 0, !peaks.isa.empty());

  // A cap is a cap for these too; without loops for it nothing is known.
  const Isa best = active_isa();
  set_isa(Isa::scalar);
  const MachinePeaks scalar = measure_peaks(1 << 20, kShort);
  set_isa(best);
  EXPECT_EQ(scalar.isa, "");
  EXPECT_EQ(scalar.integer_gops, 0);
  EXPECT_EQ(scalar.float_gops, 0);
  EXPECT_GT(scalar.read_gb_per_s, 0);
}

}  // namespace
}  // namespace narrow::kernels
