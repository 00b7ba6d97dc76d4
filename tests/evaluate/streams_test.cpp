// SPDX-License-Identifier: Apache-2.0
// Streams side by side: what they count and how they fail. How fast they are decides nothing.
#include "narrow/evaluate/streams.h"

#include "evaluate/evaluate_testing.h"
#include "narrow/core/parallel.h"

namespace narrow {
namespace {

using namespace testing;

BenchOptions few_runs(int threads) {
  BenchOptions options;
  options.batch = 3;
  options.threads = threads;
  options.seconds = 0;
  options.min_runs = options.max_runs = 7;
  options.warmup = 2;
  return options;
}

TEST(Streams, CountRunsAndShareThreads) {
  const Graph g = adder(1, 5);
  for (const int streams : {1, 2, 5}) {
    const StreamsResult r = bench_streams(g, streams, few_runs(4));
    EXPECT_EQ(r.threads_each, streams == 1 ? 4 : streams == 2 ? 2 : 1);
    EXPECT_EQ(r.batch, 3);
    EXPECT_EQ(r.cpus, available_threads());
    EXPECT_EQ(r.oversubscribed(), streams * r.threads_each > r.cpus);
    ASSERT_EQ(r.streams.size(), static_cast<size_t>(streams));
    double samples = 0;
    for (const StreamTimes& s : r.streams) {
      EXPECT_EQ(s.runs, 7);
      EXPECT_GT(s.median_us, 0);
      EXPECT_LE(s.median_us, s.p99_us);
      samples += static_cast<double>(3 * s.runs);
    }
    EXPECT_NEAR(r.samples_per_second, samples / r.seconds, 1e-6 * r.samples_per_second);
    EXPECT_EQ(r.output_hash, bench(g, few_runs(1)).output_hash);
  }
}

TEST(Streams, RunForTheTimeAsked) {
  BenchOptions options = few_runs(1);
  options.seconds = 0.05;
  options.min_runs = 1;
  options.max_runs = 1'000'000'000;
  const StreamsResult r = bench_streams(adder(1, 5), 3, options);
  EXPECT_GE(r.seconds, 0.05);
  for (const StreamTimes& s : r.streams) EXPECT_GE(s.runs, 1);
}

TEST(Streams, AnErrorOfOneEndsAll) {
  std::atomic<bool> cancel = true;
  BenchOptions options = few_runs(1);
  options.progress = Progress({}, &cancel);
  expect_in(refusal([&] { bench_streams(adder(1, 5), 4, options); }, ErrorCode::cancelled), "");
}

TEST(Streams, RefuseWhatCannotBe) {
  const Graph g = adder(1, 5);
  expect_in(refusal([&] { bench_streams(g, 0, few_runs(1)); }), "one at least");
  expect_in(refusal([&] { bench_streams(g, std::map<std::string, Tensor>{}, 2, few_runs(1)); }),
            "nothing is given for input 'x'");
  BenchOptions none = few_runs(1);
  none.max_runs = 0;
  expect_in(refusal([&] { bench_streams(g, 2, none); }), "at least one run");
}

}  // namespace
}  // namespace narrow
