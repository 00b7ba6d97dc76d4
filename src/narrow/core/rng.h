// SPDX-License-Identifier: Apache-2.0
// A small portable generator: the same seed gives the same numbers on every machine (the standard
// distributions do not promise that). splitmix64 (Steele, Lea, Flood 2014).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace narrow {

class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}
  uint64_t next();
  /// Uniform in [0, bound), without bias; bound > 0.
  uint64_t below(uint64_t bound);
  /// Uniform in [0, 1).
  double uniform();
  /// Standard normal: the sum of twelve uniforms, less six. Portable, tails end at six.
  double normal();
  template <class T>
  void shuffle(std::span<T> values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  uint64_t state_;
};

/// `count` different indices of [0, size) in random order; all of them if count >= size.
std::vector<int64_t> sample_indices(int64_t size, int64_t count, uint64_t seed);

}  // namespace narrow
