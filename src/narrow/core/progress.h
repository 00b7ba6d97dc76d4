// SPDX-License-Identifier: Apache-2.0
// How long work reports and stops: the library calls a sink, a frontend draws it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

namespace narrow {

struct ProgressEvent {
  std::string stage;  // "calibrate", "quantize", ...
  int64_t done = 0;
  int64_t total = 0;
};

/// Where long work reports to and asks whether to go on. Copies share the cancel flag's address.
class Progress {
 public:
  using Sink = std::function<void(const ProgressEvent&)>;
  Progress() = default;
  explicit Progress(Sink sink, const std::atomic<bool>* cancel = nullptr)
      : sink_(std::move(sink)), cancel_(cancel) {}

  void report(const std::string& stage, int64_t done, int64_t total) const {
    if (sink_) sink_({stage, done, total});
  }
  /// Throws Error(cancelled) once the cancel flag is set.
  void check_cancelled() const;

 private:
  Sink sink_;
  const std::atomic<bool>* cancel_ = nullptr;
};

}  // namespace narrow
