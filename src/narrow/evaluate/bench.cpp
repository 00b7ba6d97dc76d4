// SPDX-License-Identifier: Apache-2.0
#include "narrow/evaluate/bench.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <numeric>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/hash.h"
#include "narrow/core/parallel.h"
#include "narrow/core/rng.h"

namespace narrow {
namespace {

double microseconds_since(Clock::time_point start) {
  return seconds_since(start) * 1e6;
}

Dims dims_for_batch(const Value& input, int64_t batch) {
  if (!input.shape) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("input '{}' has no declared shape", input.name), "give the input");
  }
  Dims dims;
  for (size_t i = 0; i < input.shape->size(); ++i) {
    const Dim& dim = (*input.shape)[i];
    if (i == 0 && !dim.known()) {
      dims.push_back(batch);
    } else if (!dim.known()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("input '{}' is {}: dimension {} is not known", input.name,
                              to_string(*input.shape), i),
                  "give the input");
    } else if (i == 0 && dim.value != batch) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("input '{}' has a fixed batch of {}, {} is asked", input.name,
                              dim.value, batch),
                  fmt::format("give batch {}", dim.value));
    } else {
      dims.push_back(dim.value);
    }
  }
  return dims;
}

Tensor random_tensor(DType dtype, const Dims& dims, Rng& rng) {
  const int64_t count = num_elements(dims);
  if (is_float(dtype)) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = static_cast<float>(rng.uniform());
    return Tensor::from_floats(values, dtype, dims);
  }
  const uint64_t bound = dtype == DType::boolean
                             ? 2
                             : static_cast<uint64_t>(std::min<int64_t>(
                                   255, integer_max(bits(dtype) > 32 ? DType::int32 : dtype))) +
                                   1;
  std::vector<int64_t> values(static_cast<size_t>(count));
  for (int64_t& v : values) v = static_cast<int64_t>(rng.below(bound));
  return Tensor::from_ints(values, dtype, dims);
}

/// A run goes through its activations and weights, in whatever cache holds so much.
kernels::MachinePeaks peaks_for(const MemoryReport& memory, int threads) {
  constexpr double kSeconds = 0.2;
  const size_t touched = memory.arena_bytes + std::max(memory.packed_bytes, memory.constant_bytes);
  return kernels::measure_peaks(std::min(touched, kernels::kMemoryBytes),
                                {.threads = threads, .seconds = kSeconds});
}

}  // namespace

double nearest_rank(std::span<const double> sorted, int percent) {
  const size_t rank = (sorted.size() * static_cast<size_t>(percent) + 99) / 100;
  return sorted[std::max<size_t>(rank, 1) - 1];
}

std::map<std::string, Tensor> random_inputs(const Graph& graph, int64_t batch, uint64_t seed) {
  std::map<std::string, Tensor> inputs;
  Rng rng(seed);
  for (const ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    if (value.dtype == DType::undefined || value.dtype == DType::string) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("input '{}' has no element type that can be made up", value.name),
                  "give the input");
    }
    inputs[value.name] = random_tensor(value.dtype, dims_for_batch(value, batch), rng);
  }
  return inputs;
}

std::string hash_tensors(const std::vector<Tensor>& tensors) {
  Hash64 hash;
  for (const Tensor& t : tensors) {
    hash.add_text(to_string(t.dtype()));
    hash.add_number(static_cast<int64_t>(t.rank()));
    for (const int64_t d : t.dims()) hash.add_number(d);
    hash.add(t.raw(), t.bytes());
  }
  return hash.hex();
}

uint64_t peak_rss_bytes() {
  // Not getrusage() first: on Linux its maximum survives exec, so that a large program which starts
  // this one would be measured instead.
  if (std::ifstream status("/proc/self/status"); status) {
    for (std::string word; status >> word;) {
      uint64_t kilobytes = 0;
      if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024;
    }
  }
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;  // Linux counts kilobytes
}

void check_run_limits(const BenchOptions& options) {
  if (options.max_runs < 1 || options.min_runs > options.max_runs) {
    throw Error(ErrorCode::invalid_argument, "bench needs at least one run");
  }
}

std::vector<Tensor> inputs_in_order(const Session& session,
                                    const std::map<std::string, Tensor>& inputs) {
  std::vector<Tensor> ordered;
  for (const std::string& name : session.input_names()) {
    const auto found = inputs.find(name);
    if (found == inputs.end()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("nothing is given for input '{}'", name));
    }
    ordered.push_back(found->second);
  }
  return ordered;
}

int64_t batch_of(const std::vector<Tensor>& inputs) {
  return inputs.empty() || inputs[0].dims().empty() ? 1 : inputs[0].dims()[0];
}

BenchResult bench(const Graph& graph, const BenchOptions& options) {
  return bench(graph, random_inputs(graph, options.batch, options.seed), options);
}

BenchResult bench(const Graph& graph, const std::map<std::string, Tensor>& inputs,
                  const BenchOptions& options) {
  check_run_limits(options);
  const ThreadLimit limit(options.threads);
  BenchResult result;
  result.threads = current_threads();
  SessionOptions session_options = options.session;
  session_options.threads = options.threads;
  session_options.profile = options.profile;
  Session session(graph, session_options);
  const std::vector<Tensor> ordered = inputs_in_order(session, inputs);
  result.batch = batch_of(ordered);
  for (int64_t i = 0; i < std::max<int64_t>(1, options.warmup); ++i) {
    options.progress.check_cancelled();
    const std::vector<Tensor> outputs = session.run(ordered);
    if (i == 0) result.output_hash = hash_tensors(outputs);
  }
  if (options.profile) {
    session.reset_profile();  // the warm-up does not count
  }

  const int64_t min_runs = std::max<int64_t>(1, options.min_runs);
  std::vector<double> times;
  double total = 0;
  while (static_cast<int64_t>(times.size()) < options.max_runs &&
         (total < options.seconds * 1e6 || static_cast<int64_t>(times.size()) < min_runs)) {
    options.progress.check_cancelled();
    const auto start = Clock::now();
    const std::vector<Tensor> outputs = session.run(ordered);
    times.push_back(microseconds_since(start));
    total += times.back();
  }
  result.runs = static_cast<int64_t>(times.size());
  result.mean_us = total / static_cast<double>(times.size());
  std::sort(times.begin(), times.end());
  result.median_us = nearest_rank(times, 50);
  result.p90_us = nearest_rank(times, 90);
  result.min_us = times.front();
  result.peak_rss_bytes = peak_rss_bytes();
  result.memory = session.memory();
  std::vector<Dims> dims;
  for (const Tensor& input : ordered) dims.push_back(input.dims());
  result.macs = session.count_macs(dims);
  if (options.profile) {
    result.profile = session.profile();
    result.peaks = peaks_for(result.memory, options.threads);
  }
  return result;
}

}  // namespace narrow
