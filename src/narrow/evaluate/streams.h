// SPDX-License-Identifier: Apache-2.0
// What a model gives when several callers use it at once: streams that run one session, each in a
// thread of its own, as requests to a server do. Weights are there once; activations and scratch
// are each stream's own.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "narrow/evaluate/bench.h"

namespace narrow {

struct StreamTimes {
  int64_t runs = 0;
  double median_us = 0;
  double p99_us = 0;
  double samples_per_second = 0;  // while all streams ran
};

struct StreamsResult {
  int64_t batch = 1;
  int threads_each = 1;           // of a stream, for the work inside a run
  int cpus = 1;                   // that this process may use
  double seconds = 0;             // from the start of all until the last one's end
  double samples_per_second = 0;  // of all streams together
  std::vector<StreamTimes> streams;
  uint64_t peak_rss_bytes = 0;
  std::string output_hash;  // of each stream's first run: equal, or bench_streams() throws
  MemoryReport memory;      // arena and activations of one stream

  /// More threads than CPUs: times contain waiting for one.
  bool oversubscribed() const { return static_cast<int64_t>(streams.size()) * threads_each > cpus; }
};

/// As bench(), `streams` at a time: each with options.threads / streams threads, one at least, for
/// options.seconds and options.min_runs at least, after its own warm-up and together with the
/// others. No profile. Throws invalid_argument for less than one stream, resource_exhausted where
/// the system gives no more threads or memory; the first error of a stream ends all.
StreamsResult bench_streams(const Graph& graph, int streams, const BenchOptions& options = {});
StreamsResult bench_streams(const Graph& graph, const std::map<std::string, Tensor>& inputs,
                            int streams, const BenchOptions& options = {});

}  // namespace narrow
