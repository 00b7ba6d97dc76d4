// SPDX-License-Identifier: Apache-2.0
#include "progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <mutex>

#include "context.h"

namespace narrow::cli {
namespace {

using Clock = std::chrono::steady_clock;

// A bar for what is over at once would only flicker.
constexpr auto kShowAfter = std::chrono::seconds(2);
constexpr auto kRedrawEvery = std::chrono::milliseconds(100);

std::atomic<bool> g_cancel{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

class Bar {
 public:
  void update(const ProgressEvent& event) {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    if (event.stage != stage_) {
      erase();
      stage_ = event.stage;
      started_ = now;
      best_ = 0;
    }
    best_ = std::max(best_, event.done);  // reports of several threads may overtake each other
    if (now - started_ < kShowAfter || now - drawn_ < kRedrawEvery) return;
    drawn_ = now;
    visible_ = true;
    const std::string line = progress_line(stage_, best_, event.total, columns() - 1);
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    std::fflush(stderr);
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    erase();
  }

 private:
  void erase() {
    if (!visible_) return;
    std::fputs("\r\033[K", stderr);
    std::fflush(stderr);
    visible_ = false;
  }

  static int columns() {
    winsize size{};
    const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : 80;
  }

  std::mutex mutex_;
  std::string stage_;
  Clock::time_point started_;
  Clock::time_point drawn_;
  int64_t best_ = 0;
  bool visible_ = false;
};

Bar& bar() {
  static Bar the_bar;
  return the_bar;
}

void on_signal(int) {
  g_cancel = true;
}

}  // namespace

std::string progress_line(const std::string& stage, int64_t done, int64_t total, int width) {
  constexpr int kBarWidth = 20;
  std::string line = stage;
  if (total > 0) {
    const double fraction =
        std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
    const auto filled = static_cast<size_t>(fraction * kBarWidth);
    line += fmt::format("  [{}{}]  {:3.0f} %  {}/{}", std::string(filled, '#'),
                        std::string(kBarWidth - filled, '-'), 100 * fraction, done, total);
  } else {
    line += fmt::format("  {}", done);
  }
  return line.substr(0, static_cast<size_t>(std::max(width, 0)));
}

void clear_progress_bar() {
  bar().clear();
}

Progress make_progress() {
  if (::isatty(STDERR_FILENO) == 0) return Progress(nullptr, &g_cancel);
  return Progress([](const ProgressEvent& event) { bar().update(event); }, &g_cancel);
}

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second one has its usual effect
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace narrow::cli
