// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/rng.h"

#include <algorithm>
#include <numeric>

namespace narrow {

uint64_t Rng::next() {
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t Rng::below(uint64_t bound) {
  // Reject the short last cycle, so that every value is equally likely.
  const uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
  uint64_t x = next();
  while (x >= limit) x = next();
  return x % bound;
}

double Rng::uniform() {
  return static_cast<double>(next() >> 11) * 0x1p-53;
}

double Rng::normal() {
  double sum = 0;
  for (int i = 0; i < 12; ++i) sum += uniform();
  return sum - 6;
}

std::vector<int64_t> sample_indices(int64_t size, int64_t count, uint64_t seed) {
  std::vector<int64_t> all(static_cast<size_t>(std::max<int64_t>(size, 0)));
  std::iota(all.begin(), all.end(), int64_t{0});
  Rng(seed).shuffle(std::span<int64_t>(all));
  if (count < size) all.resize(static_cast<size_t>(std::max<int64_t>(count, 0)));
  return all;
}

}  // namespace narrow
