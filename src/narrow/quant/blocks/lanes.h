// SPDX-License-Identifier: Apache-2.0
// Eight floats side by side for the searches of the encoders. Operations are per lane and sums join
// the lanes in one fixed order, so the bytes written do not depend on the instruction set. Internal
// to quant/blocks.
//
// This folder's encoders are compiled twice on x86-64: for every machine, and with
// NARROW_BLOCKS_ISA = avx2 for those that have it (avx2/). Whatever is inline stands in a namespace
// of that name, so that the linker never takes the one for the other.
#pragma once

#include <cstring>

#ifndef NARROW_BLOCKS_ISA
#define NARROW_BLOCKS_ISA portable
#endif

namespace narrow::blocks {
inline namespace NARROW_BLOCKS_ISA {

// x - V{} is x in every lane: compilers make one instruction of it, and a chain of inserts of a
// list.

#if defined(__AVX2__)
/// One vector of eight.
struct F8 {
  using V = float __attribute__((vector_size(32)));
  V v;

  static F8 load(const float* p) {
    F8 r;
    std::memcpy(&r.v, p, sizeof(V));
    return r;
  }
  void store(float* p) const { std::memcpy(p, &v, sizeof(V)); }
  void store_bytes(unsigned char* p) const {
    using I = int __attribute__((vector_size(32)));
    const I whole = __builtin_convertvector(v, I);
    for (int i = 0; i < 8; ++i) p[i] = static_cast<unsigned char>(whole[i]);
  }
  static F8 all(float x) { return {x - V{}}; }
  float sum() const { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }
};

inline F8 operator+(F8 x, F8 y) {
  return {x.v + y.v};
}
inline F8 operator-(F8 x, F8 y) {
  return {x.v - y.v};
}
inline F8 operator*(F8 x, F8 y) {
  return {x.v * y.v};
}
inline F8 min(F8 x, F8 y) {
  return {x.v < y.v ? x.v : y.v};
}
inline F8 max(F8 x, F8 y) {
  return {x.v > y.v ? x.v : y.v};
}
inline F8 where_above(F8 x, F8 limit, F8 value) {
  const F8::V zero = {};
  return {x.v > limit.v ? value.v : zero};
}
#else
/// Two vectors of four: what every x86-64 and ARM machine has.
struct F8 {
  using V = float __attribute__((vector_size(16)));
  V a;
  V b;

  static F8 load(const float* p) {
    F8 r;
    std::memcpy(&r.a, p, sizeof(V));
    std::memcpy(&r.b, p + 4, sizeof(V));
    return r;
  }
  void store(float* p) const {
    std::memcpy(p, &a, sizeof(V));
    std::memcpy(p + 4, &b, sizeof(V));
  }
  /// Lanes that are integers of [0, 255].
  void store_bytes(unsigned char* p) const {
    for (int i = 0; i < 4; ++i) {
      p[i] = static_cast<unsigned char>(static_cast<int>(a[i]));
      p[4 + i] = static_cast<unsigned char>(static_cast<int>(b[i]));
    }
  }
  static F8 all(float x) { return {x - V{}, x - V{}}; }
  float sum() const {
    const V s = a + b;
    return (s[0] + s[2]) + (s[1] + s[3]);
  }
};

inline F8 operator+(F8 x, F8 y) {
  return {x.a + y.a, x.b + y.b};
}
inline F8 operator-(F8 x, F8 y) {
  return {x.a - y.a, x.b - y.b};
}
inline F8 operator*(F8 x, F8 y) {
  return {x.a * y.a, x.b * y.b};
}
inline F8 min(F8 x, F8 y) {
  return {x.a < y.a ? x.a : y.a, x.b < y.b ? x.b : y.b};
}
inline F8 max(F8 x, F8 y) {
  return {x.a > y.a ? x.a : y.a, x.b > y.b ? x.b : y.b};
}
/// `value` where x > limit, else 0.
inline F8 where_above(F8 x, F8 limit, F8 value) {
  const F8::V zero = {};
  return {x.a > limit.a ? value.a : zero, x.b > limit.b ? value.b : zero};
}

#endif

/// Half to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no bits for the fraction.
inline F8 round(F8 x) {
  const F8 all_integers = F8::all(12582912.0f);
  return (x + all_integers) - all_integers;
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks
