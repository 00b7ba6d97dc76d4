// SPDX-License-Identifier: Apache-2.0
// Folds the results of parallel batches in the order of their indices: floating-point sums come out
// the same for any number of threads, and only results that overtook others are kept.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

namespace narrow {

template <class Part>
class OrderedMerge {
 public:
  explicit OrderedMerge(std::function<void(Part&)> fold) : fold_(std::move(fold)) {}

  /// Once for every index from 0 on, from any thread.
  void add(int64_t index, Part part) {
    const std::lock_guard lock(mutex_);
    waiting_.emplace(index, std::move(part));
    for (auto first = waiting_.begin(); first != waiting_.end() && first->first == next_;
         first = waiting_.begin()) {
      fold_(first->second);
      waiting_.erase(first);
      ++next_;
    }
  }

 private:
  std::function<void(Part&)> fold_;
  std::mutex mutex_;
  std::map<int64_t, Part> waiting_;
  int64_t next_ = 0;
};

}  // namespace narrow
