// SPDX-License-Identifier: Apache-2.0
#include "narrow/evaluate/streams.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow {
namespace {

/// Holds streams back until the last one is ready, keeps their first error, and tells the others.
class Together {
 public:
  explicit Together(int streams) : missing_(streams) {}

  void arrive_and_wait() {
    std::unique_lock lock(mutex_);
    if (--missing_ == 0) start_ = Clock::now();
    if (missing_ == 0) all_here_.notify_all();
    all_here_.wait(lock, [&] { return missing_ == 0 || failed(); });
  }
  void fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    failed_ = true;
    all_here_.notify_all();
  }
  bool failed() const { return failed_; }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }
  Clock::time_point start() const { return start_; }

 private:
  std::mutex mutex_;
  std::condition_variable all_here_;
  int missing_;
  Clock::time_point start_;
  std::exception_ptr error_;
  std::atomic<bool> failed_ = false;
};

struct Stream {
  std::vector<double> times;  // microseconds
  std::string output_hash;
};

void run_stream(const Session& session, const std::vector<Tensor>& inputs,
                const BenchOptions& options, Together& together, Stream& stream) {
  for (int64_t i = 0; i < std::max<int64_t>(1, options.warmup) && !together.failed(); ++i) {
    options.progress.check_cancelled();
    const std::vector<Tensor> outputs = session.run(inputs);
    if (i == 0) stream.output_hash = hash_tensors(outputs);
  }
  together.arrive_and_wait();
  const int64_t min_runs = std::max<int64_t>(1, options.min_runs);
  for (int64_t runs = 0; runs < options.max_runs && !together.failed() &&
                         (runs < min_runs || seconds_since(together.start()) < options.seconds);
       ++runs) {
    options.progress.check_cancelled();
    const auto start = Clock::now();
    const std::vector<Tensor> outputs = session.run(inputs);
    stream.times.push_back(seconds_since(start) * 1e6);
  }
}

/// All streams from beginning to end; the seconds that they ran side by side. The first is the
/// calling thread: beside its idle OpenMP team there would be more threads than CPUs, and libgomp
/// then wakes all teams the slow way.
double run_all(const Session& session, const std::vector<Tensor>& inputs,
               const BenchOptions& options, std::vector<Stream>& streams) {
  Together together(static_cast<int>(streams.size()));
  const auto run = [&](Stream& stream) {
    try {
      run_stream(session, inputs, options, together, stream);
    } catch (...) {
      together.fail(std::current_exception());
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(streams.size());
  try {
    for (size_t i = 1; i < streams.size(); ++i) {
      threads.emplace_back([&run, &stream = streams[i]] { run(stream); });
    }
  } catch (const std::system_error& error) {
    together.fail(std::make_exception_ptr(
        Error(ErrorCode::resource_exhausted,
              fmt::format("the thread of stream {} of {} does not start: {}", threads.size() + 2,
                          streams.size(), error.what()),
              "ask for fewer streams")));
  }
  if (!together.failed()) run(streams.front());
  for (std::thread& thread : threads) thread.join();
  together.rethrow();
  return seconds_since(together.start());
}

StreamTimes times_of(Stream& stream, int64_t batch, double seconds) {
  std::sort(stream.times.begin(), stream.times.end());
  StreamTimes times;
  times.runs = static_cast<int64_t>(stream.times.size());
  times.median_us = nearest_rank(stream.times, 50);
  times.p99_us = nearest_rank(stream.times, 99);
  times.samples_per_second = static_cast<double>(times.runs * batch) / seconds;
  return times;
}

}  // namespace

StreamsResult bench_streams(const Graph& graph, int streams, const BenchOptions& options) {
  return bench_streams(graph, random_inputs(graph, options.batch, options.seed), streams, options);
}

StreamsResult bench_streams(const Graph& graph, const std::map<std::string, Tensor>& inputs,
                            int streams, const BenchOptions& options) {
  if (streams < 1) throw Error(ErrorCode::invalid_argument, "streams are one at least");
  check_run_limits(options);
  StreamsResult result;
  result.cpus = available_threads();
  const int threads = options.threads > 0 ? options.threads : result.cpus;
  result.threads_each = std::max(1, threads / streams);
  SessionOptions session_options = options.session;
  session_options.threads = result.threads_each;
  session_options.profile = false;
  const Session session(graph, session_options);
  const std::vector<Tensor> ordered = inputs_in_order(session, inputs);
  result.batch = batch_of(ordered);

  std::vector<Stream> done(static_cast<size_t>(streams));
  result.seconds = run_all(session, ordered, options, done);
  result.output_hash = done.front().output_hash;
  for (Stream& stream : done) {
    if (stream.output_hash != result.output_hash) {
      throw Error(ErrorCode::internal, "two streams give different results for the same input");
    }
    result.streams.push_back(times_of(stream, result.batch, result.seconds));
    result.samples_per_second += result.streams.back().samples_per_second;
  }
  result.peak_rss_bytes = peak_rss_bytes();
  result.memory = session.memory();
  return result;
}

}  // namespace narrow
