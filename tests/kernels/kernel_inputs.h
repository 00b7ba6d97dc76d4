// SPDX-License-Identifier: Apache-2.0
// Inputs that kernels get wrong: values at the ends of their ranges, and reproducible noise.
#pragma once

#include <cstdint>
#include <vector>

#include "narrow/kernels/kernel_set.h"

namespace narrow::testing {

/// Small deterministic generator (xorshift): tests need no more than reproducible variety.
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint32_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
  }
  int32_t in(int32_t lo, int32_t hi) {
    return lo + static_cast<int32_t>(next() % static_cast<uint32_t>(hi - lo + 1));
  }

 private:
  uint64_t state_;
};

/// How a buffer of codes is filled.
enum class Fill { noise, highest, lowest, alternating, ends };

template <class T>
void fill(T* data, size_t count, Fill how, int32_t lo, int32_t hi, uint64_t seed) {
  Noise noise(seed);
  for (size_t i = 0; i < count; ++i) {
    int32_t v = 0;
    switch (how) {
      case Fill::noise:
        v = noise.in(lo, hi);
        break;
      case Fill::highest:
        v = hi;
        break;
      case Fill::lowest:
        v = lo;
        break;
      case Fill::alternating:
        v = i % 2 == 0 ? lo : hi;
        break;
      case Fill::ends:
        v = noise.next() % 2 == 0 ? lo : hi;
        break;
    }
    data[i] = static_cast<T>(v);
  }
}

/// The sets that this machine can run.
inline std::vector<const kernels::KernelSet*> runnable_kernels() {
  std::vector<const kernels::KernelSet*> out;
  for (const kernels::KernelSet& set : kernels::kernel_sets()) {
    if (cpu_supports(set.isa)) out.push_back(&set);
  }
  return out;
}

}  // namespace narrow::testing
