// SPDX-License-Identifier: Apache-2.0
// How fast a model runs: times of single runs, from float input to float output.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "narrow/core/progress.h"
#include "narrow/graph/graph.h"
#include "narrow/kernels/peaks.h"
#include "narrow/runtime/session.h"

namespace narrow {

struct BenchOptions {
  int64_t batch = 1;
  int threads = 0;        // 0: all CPUs of the affinity mask
  double seconds = 1.0;   // of timed runs, at least
  int64_t min_runs = 20;  // of timed runs, whatever they take; one at least
  int64_t max_runs = 20000;
  int64_t warmup = 5;
  uint64_t seed = 1;       // of the inputs: uniform in [0, 1), integers in 0..255
  bool profile = false;    // adds times by node and the machine's peaks; costs a little speed
  SessionOptions session;  // threads and profile are set from above
  Progress progress;
};

struct BenchResult {
  int64_t batch = 1;
  int threads = 1;
  int64_t runs = 0;
  double median_us = 0;
  double p90_us = 0;
  double min_us = 0;
  double mean_us = 0;
  uint64_t peak_rss_bytes = 0;  // of this process so far
  std::string output_hash;      // of all outputs' bytes; equal runs give equal hashes
  MemoryReport memory;
  Session::MacCount macs;
  std::vector<NodeProfile> profile;
  kernels::MachinePeaks peaks;  // with a profile: see evaluate/profile.h
};

/// Inputs are made from the graph's declared shapes: an unknown leading dimension is the batch.
/// Throws invalid_argument naming an input whose other dimensions are not known, or whose fixed
/// batch differs from options.batch.
BenchResult bench(const Graph& graph, const BenchOptions& options = {});
/// The same on given inputs, by name (their leading dimension is the batch).
BenchResult bench(const Graph& graph, const std::map<std::string, Tensor>& inputs,
                  const BenchOptions& options = {});

/// The smallest of the sorted values that `percent` (0 to 100) of them do not pass; 50 is the
/// median (of an even number the lower one). There must be at least one.
double nearest_rank(std::span<const double> sorted, int percent);
/// Inputs as bench() makes them.
std::map<std::string, Tensor> random_inputs(const Graph& graph, int64_t batch, uint64_t seed);
/// Throws invalid_argument where max_runs allows none, or fewer than min_runs.
void check_run_limits(const BenchOptions& options);
/// As Session::run() takes them. Throws invalid_argument naming one that is not given.
std::vector<Tensor> inputs_in_order(const Session& session,
                                    const std::map<std::string, Tensor>& inputs);
/// The leading dimension of the first input; 1 where there is none.
int64_t batch_of(const std::vector<Tensor>& inputs);
/// Sixteen hexadecimal digits over dtypes, shapes and bytes, in this order.
std::string hash_tensors(const std::vector<Tensor>& tensors);
/// Highest resident memory of this process so far, in bytes; 0 if the system does not say.
uint64_t peak_rss_bytes();

}  // namespace narrow
