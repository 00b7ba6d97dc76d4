// SPDX-License-Identifier: Apache-2.0
// Eight floats side by side for the searches of the encoders. Operations are per lane and sums join
// the lanes in one fixed order, so the bytes written do not depend on the instruction set. Internal
// to quant/blocks.
//
// F8 is made for what every machine has, W8 for AVX2: the same code, inlined as a whole
// (NARROW_ENCODE_AVX2) into functions for that instruction set.
#pragma once

#include <cstring>

#include "narrow/core/cpu.h"

#define NARROW_LANES __attribute__((always_inline)) inline

namespace narrow::blocks {

/// Two vectors of four: what every x86-64 and ARM machine has.
struct F8 {
  using V = float __attribute__((vector_size(16)));
  V a;
  V b;

  NARROW_LANES static F8 load(const float* p) {
    F8 r;
    std::memcpy(&r.a, p, sizeof(V));
    std::memcpy(&r.b, p + 4, sizeof(V));
    return r;
  }
  NARROW_LANES void store(float* p) const {
    std::memcpy(p, &a, sizeof(V));
    std::memcpy(p + 4, &b, sizeof(V));
  }
  /// Lanes that are integers of [0, 255].
  NARROW_LANES void store_bytes(unsigned char* p) const {
    for (int i = 0; i < 4; ++i) {
      p[i] = static_cast<unsigned char>(static_cast<int>(a[i]));
      p[4 + i] = static_cast<unsigned char>(static_cast<int>(b[i]));
    }
  }
  NARROW_LANES static F8 all(float x) { return {V{x, x, x, x}, V{x, x, x, x}}; }
  NARROW_LANES float sum() const {
    const V s = a + b;
    return (s[0] + s[2]) + (s[1] + s[3]);
  }
};

NARROW_LANES F8 operator+(F8 x, F8 y) {
  return {x.a + y.a, x.b + y.b};
}
NARROW_LANES F8 operator-(F8 x, F8 y) {
  return {x.a - y.a, x.b - y.b};
}
NARROW_LANES F8 operator*(F8 x, F8 y) {
  return {x.a * y.a, x.b * y.b};
}
NARROW_LANES F8 min(F8 x, F8 y) {
  return {x.a < y.a ? x.a : y.a, x.b < y.b ? x.b : y.b};
}
NARROW_LANES F8 max(F8 x, F8 y) {
  return {x.a > y.a ? x.a : y.a, x.b > y.b ? x.b : y.b};
}
/// `value` where x > limit, else 0.
NARROW_LANES F8 where_above(F8 x, F8 limit, F8 value) {
  const F8::V zero = {};
  return {x.a > limit.a ? value.a : zero, x.b > limit.b ? value.b : zero};
}

#if defined(__x86_64__)
#define NARROW_ENCODE_AVX2 1
// Everything that takes or returns such a vector is inlined; no call passes one.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"

/// One vector of eight.
struct W8 {
  using V = float __attribute__((vector_size(32)));
  V v;

  NARROW_LANES static W8 load(const float* p) {
    W8 r;
    std::memcpy(&r.v, p, sizeof(V));
    return r;
  }
  NARROW_LANES void store(float* p) const { std::memcpy(p, &v, sizeof(V)); }
  NARROW_LANES void store_bytes(unsigned char* p) const {
    using I = int __attribute__((vector_size(32)));
    const I whole = __builtin_convertvector(v, I);
    for (int i = 0; i < 8; ++i) p[i] = static_cast<unsigned char>(whole[i]);
  }
  NARROW_LANES static W8 all(float x) { return {V{x, x, x, x, x, x, x, x}}; }
  NARROW_LANES float sum() const {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
  }
};

NARROW_LANES W8 operator+(const W8& x, const W8& y) {
  return {x.v + y.v};
}
NARROW_LANES W8 operator-(const W8& x, const W8& y) {
  return {x.v - y.v};
}
NARROW_LANES W8 operator*(const W8& x, const W8& y) {
  return {x.v * y.v};
}
NARROW_LANES W8 min(const W8& x, const W8& y) {
  return {x.v < y.v ? x.v : y.v};
}
NARROW_LANES W8 max(const W8& x, const W8& y) {
  return {x.v > y.v ? x.v : y.v};
}
NARROW_LANES W8 where_above(const W8& x, const W8& limit, const W8& value) {
  const W8::V zero = {};
  return {x.v > limit.v ? value.v : zero};
}
#pragma GCC diagnostic pop

/// encode_<name> from a template `name` over the kind of lanes.
#define NARROW_ENCODER(name)                                                                       \
  __attribute__((target("avx2"), flatten)) static void name##_avx2(                                \
      const float* x, const float* importance, int64_t blocks, EncodeMethod method,                \
      Emphasis emphasis, uint8_t* out) {                                                           \
    name<W8>(x, importance, blocks, method, emphasis, out);                                        \
  }                                                                                                \
  void encode_##name(const float* x, const float* importance, int64_t blocks, EncodeMethod method, \
                     Emphasis emphasis, uint8_t* out) {                                            \
    if (isa_enabled(Isa::avx2)) return name##_avx2(x, importance, blocks, method, emphasis, out);  \
    name<F8>(x, importance, blocks, method, emphasis, out);                                        \
  }
#else
#define NARROW_ENCODER(name)                                                                       \
  void encode_##name(const float* x, const float* importance, int64_t blocks, EncodeMethod method, \
                     Emphasis emphasis, uint8_t* out) {                                            \
    name<F8>(x, importance, blocks, method, emphasis, out);                                        \
  }
#endif

/// Half to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no bits for the fraction.
template <class F>
NARROW_LANES F round(const F& x) {
  const F all_integers = F::all(12582912.0f);
  return (x + all_integers) - all_integers;
}

}  // namespace narrow::blocks
