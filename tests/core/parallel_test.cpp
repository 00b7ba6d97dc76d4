// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "narrow/core/error.h"

namespace narrow {
namespace {

TEST(Parallel, EveryBlockRunsOnceForAnyThreadCount) {
  for (const int threads : {1, 2, 3, 7}) {
    const ThreadLimit limit(threads);
    std::vector<std::atomic<int>> hits(1000);
    parallel_for(1000, 7, [&](int64_t begin, int64_t end) {
      EXPECT_EQ(begin % 7, 0);
      for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
    });
    for (const auto& hit : hits) EXPECT_EQ(hit.load(), 1);
  }
}

TEST(Parallel, TheFirstExceptionComesThrough) {
  const ThreadLimit limit(4);
  EXPECT_THROW(parallel_blocks(100,
                               [](int64_t i) {
                                 if (i == 13) throw Error(ErrorCode::numeric_failure, "13");
                               }),
               Error);
  std::atomic<int> after{0};
  parallel_blocks(10, [&](int64_t) { ++after; });
  EXPECT_EQ(after.load(), 10);
}

TEST(Parallel, NestedWorkStaysOnItsThread) {
  const ThreadLimit limit(4);
  parallel_blocks(8, [](int64_t) {
    EXPECT_EQ(current_threads(), 1);
    const auto self = std::this_thread::get_id();
    parallel_blocks(5, [&](int64_t) { EXPECT_EQ(std::this_thread::get_id(), self); });
    EXPECT_EQ(current_threads(), 1);
  });
  EXPECT_EQ(current_threads(), 4);
}

TEST(Parallel, SeveralThreadsAtOnceAndMoreThanThereAreCpus) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum{0};
  for (int c = 0; c < 3; ++c) {
    callers.emplace_back([&] {
      const ThreadLimit limit(5);
      for (int round = 0; round < 300; ++round) {
        parallel_blocks(round % 9, [&](int64_t i) { sum += i + 1; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  int64_t expected = 0;
  for (int64_t round = 0; round < 300; ++round) expected += round % 9 * (round % 9 + 1) / 2;
  EXPECT_EQ(sum.load(), 3 * expected);
}

TEST(Parallel, HelpersThatSleepAreWoken) {
  const ThreadLimit limit(2);
  for (int round = 0; round < 5; ++round) {
    // Either of two blocks waits for the other: a second thread has to come.
    std::atomic<int> begun{0};
    const auto meet = [&](int64_t) {
      ++begun;
      while (begun < 2) std::this_thread::yield();
    };
    parallel_blocks(2, meet);
    {
      const OpenmpWork openmp;
      begun = 0;
      parallel_blocks(2, meet);
    }
    note_openmp_work();
    begun = 0;
    parallel_blocks(2, meet);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

TEST(Parallel, LimitsNestAndEnd) {
  const int before = current_threads();
  {
    const ThreadLimit outer(3);
    EXPECT_EQ(current_threads(), 3);
    {
      const ThreadLimit inner(1);
      EXPECT_EQ(current_threads(), 1);
    }
    EXPECT_EQ(current_threads(), 3);
  }
  EXPECT_EQ(current_threads(), before);
}

}  // namespace
}  // namespace narrow
