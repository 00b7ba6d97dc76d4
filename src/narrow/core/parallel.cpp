// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>

#include "narrow/core/thread_team.h"

#ifdef NARROW_OPENMP
#include <omp.h>
#endif

namespace narrow {
namespace {

thread_local int t_limit = 0;        // 0: not limited
thread_local bool t_inside = false;  // in a parallel region

#ifdef NARROW_OPENMP
using Clock = std::chrono::steady_clock;
// libgomp's helpers look for work that long after a region, on CPUs that ours would want.
constexpr std::chrono::milliseconds kOpenmpStays{4};
thread_local Clock::time_point t_openmp_until{};
thread_local int t_openmp_scopes = 0;
#endif

int count_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  if (const char* text = std::getenv("NARROW_THREADS")) {
    const int wanted = std::atoi(text);
    if (wanted > 0) cpus = std::min(cpus, wanted);
  }
  return std::max(cpus, 1);
}

/// Keeps the first exception; the others are dropped with the blocks that were not begun.
class FirstError {
 public:
  bool raised() const { return raised_.load(std::memory_order_relaxed); }
  void capture() {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
    raised_ = true;
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::atomic<bool> raised_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

void work(int64_t blocks, const std::function<void(int64_t)>& block, std::atomic<int64_t>& next,
          FirstError& error) {
  t_inside = true;
  for (int64_t i = next++; i < blocks && !error.raised(); i = next++) {
    try {
      block(i);
    } catch (...) {
      error.capture();
    }
  }
  t_inside = false;
}

}  // namespace

int available_threads() {
  static const int cpus = count_cpus();
  return cpus;
}

int current_threads() {
  if (t_inside) return 1;
  return t_limit > 0 ? t_limit : available_threads();
}

ThreadLimit::ThreadLimit(int threads) : saved_(t_limit) {
  t_limit = threads > 0 ? threads : 0;
#ifdef NARROW_OPENMP
  omp_set_num_threads(current_threads());
#endif
}

ThreadLimit::~ThreadLimit() {
  t_limit = saved_;
#ifdef NARROW_OPENMP
  omp_set_num_threads(current_threads());
#endif
}

void note_openmp_work() {
#ifdef NARROW_OPENMP
  if (current_threads() > 1) t_openmp_until = Clock::now() + kOpenmpStays;
#endif
}

OpenmpWork::OpenmpWork() {
#ifdef NARROW_OPENMP
  ++t_openmp_scopes;
#endif
}

OpenmpWork::~OpenmpWork() {
#ifdef NARROW_OPENMP
  --t_openmp_scopes;
#endif
}

void parallel_blocks(int64_t blocks, const std::function<void(int64_t)>& block) {
  const auto threads = static_cast<int>(std::min<int64_t>(current_threads(), blocks));
  if (threads <= 1) {
    for (int64_t i = 0; i < blocks; ++i) block(i);
    return;
  }
  std::atomic<int64_t> next{0};
  FirstError error;
#ifdef NARROW_OPENMP
  if (t_openmp_scopes > 0 || Clock::now() < t_openmp_until) {
#pragma omp parallel num_threads(threads)
    work(blocks, block, next, error);
    error.rethrow();
    return;
  }
#endif
  thread_local ThreadTeam team;
  team.run(threads, [&] { work(blocks, block, next, error); });
  error.rethrow();
}

}  // namespace narrow
