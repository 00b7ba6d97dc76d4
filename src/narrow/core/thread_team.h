// SPDX-License-Identifier: Apache-2.0
// The helpers of one calling thread. Nobody waits for a helper that has not come: what it would
// have done, the caller does, so that a CPU which other programs hold costs its share of the speed
// and no more (a team that meets at a barrier waits a time slice of some milliseconds for it).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace narrow {

class ThreadTeam {
 public:
  ThreadTeam() = default;
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  /// Calls body() on this thread and on up to threads - 1 helpers, those that come before this
  /// thread's call ends; returns when all have ended. body shares its work out itself and does not
  /// throw. Not from two threads at once, nor from within.
  void run(int threads, const std::function<void()>& body);

 private:
  void grow(int helpers);
  void help(uint32_t seen);
  uint32_t wait_for_work(uint32_t seen);

  std::vector<std::thread> helpers_;
  const std::function<void()>* body_ = nullptr;
  // All in one order (seq_cst): a helper says that it is inside before it looks whether the door is
  // open, the caller closes the door before it looks whether anybody is inside.
  std::atomic<uint32_t> call_{0};  // counts the calls of run()
  std::atomic<bool> open_{false};
  std::atomic<int> inside_{0};
  std::atomic<int> seats_{0};
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace narrow
