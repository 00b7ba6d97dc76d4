// SPDX-License-Identifier: Apache-2.0
// Threads. Work is cut into blocks whose borders depend on the problem alone, never on
// the number of threads, so that results do not either. The first exception cancels the remaining
// blocks and is rethrown; a nested call runs on the calling thread.
#pragma once

#include <cstdint>
#include <functional>

namespace narrow {

/// CPUs in this process's affinity mask, capped by the environment variable NARROW_THREADS.
int available_threads();

/// Threads that parallel work started from this thread may use; 1 inside a parallel region.
int current_threads();

/// Limits the threads of parallel work started from this thread (oneDNN's too) while it lives.
/// 0 means available_threads().
class ThreadLimit {
 public:
  explicit ThreadLimit(int threads);
  ~ThreadLimit();
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  int saved_;
};

/// Says that a library has just run OpenMP work from this thread: its helpers are at hand for some
/// milliseconds, and parallel work goes to them meanwhile rather than compete with them.
void note_openmp_work();

/// The same while it lives: around work that another library interleaves with ours.
class OpenmpWork {
 public:
  OpenmpWork();
  ~OpenmpWork();
  OpenmpWork(const OpenmpWork&) = delete;
  OpenmpWork& operator=(const OpenmpWork&) = delete;
};

/// Calls block(i) for i in [0, blocks), each once, on any thread.
void parallel_blocks(int64_t blocks, const std::function<void(int64_t)>& block);

/// Calls range(begin, end) over [0, count) in blocks of `block_size` (the last may be shorter).
inline void parallel_for(int64_t count, int64_t block_size,
                         const std::function<void(int64_t, int64_t)>& range) {
  if (count <= 0) return;
  const int64_t blocks = (count + block_size - 1) / block_size;
  parallel_blocks(blocks, [&](int64_t i) {
    const int64_t begin = i * block_size;
    range(begin, begin + block_size < count ? begin + block_size : count);
  });
}

}  // namespace narrow
