// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/thread_team.h"

#include <sched.h>

#include <system_error>

namespace narrow {
namespace {

// A helper looks for work some 5 to 10 us (a pause takes 40 to 140 cycles), which is longer than
// most gaps between the operators of a network; then it lets others run as often as this, some 50
// us; then it sleeps, and waking it costs the caller a system call.
constexpr int kPauses = 256;
constexpr int kYields = 64;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  ++call_;
  call_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadTeam::grow(int helpers) {
  while (static_cast<int>(helpers_.size()) < helpers) {
    try {
      helpers_.emplace_back(&ThreadTeam::help, this, call_.load());
    } catch (const std::system_error&) {
      return;  // no more threads to be had: fewer helpers do
    }
  }
}

uint32_t ThreadTeam::wait_for_work(uint32_t seen) {
  for (int i = 0; i < kPauses + kYields; ++i) {
    if (const uint32_t now = call_; now != seen) return now;
    if (i < kPauses) {
      pause();
    } else {
      ::sched_yield();
    }
  }
  ++asleep_;
  call_.wait(seen);
  --asleep_;
  return call_;
}

void ThreadTeam::help(uint32_t seen) {
  while (true) {
    seen = wait_for_work(seen);
    if (stop_) return;
    ++inside_;
    if (open_ && seats_-- > 0) (*body_)();
    --inside_;
  }
}

void ThreadTeam::run(int threads, const std::function<void()>& body) {
  grow(threads - 1);
  body_ = &body;
  seats_ = threads - 1;
  open_ = true;
  ++call_;
  if (asleep_ > 0) call_.notify_all();
  body();
  open_ = false;
  for (int i = 0; inside_ != 0; ++i) {
    if (i < kPauses) {
      pause();
    } else {
      ::sched_yield();
    }
  }
}

}  // namespace narrow
