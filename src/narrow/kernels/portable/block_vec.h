// SPDX-License-Identifier: Apache-2.0
// The 16 rows of a panel in plain C++, for kernels/block_gemm_body.h. Included by files of this
// folder only, inside an anonymous namespace.
#pragma once

#define NARROW_LAMBDA

constexpr int64_t kTilePanels = 1;
constexpr int product_class(int) {
  return 8;
}

constexpr int64_t bytes_ahead(int) {
  return 8192;
}

struct Codes {
  uint8_t at[64];
};
struct Ints {
  int32_t at[kPanel];
};
struct Floats {
  float at[kPanel];
};
using Quad = const int8_t*;

template <class Function>
inline Floats each(const Function& function) {
  Floats y;
  for (int i = 0; i < kPanel; ++i) y.at[i] = function(i);
  return y;
}

inline Codes load_codes(const uint8_t* p) {
  Codes c;
  std::memcpy(c.at, p, sizeof(c.at));
  return c;
}
inline void store_codes(uint8_t* p, const Codes& c) {
  std::memcpy(p, c.at, sizeof(c.at));
}
/// Width bits at From, moved to To.
template <int From, int To, int Width>
inline Codes field(const Codes& c) {
  Codes y;
  for (int i = 0; i < 64; ++i) {
    y.at[i] = static_cast<uint8_t>(((c.at[i] >> From) & ((1 << Width) - 1)) << To);
  }
  return y;
}
inline Codes merge(const Codes& a, const Codes& b) {
  Codes y;
  for (int i = 0; i < 64; ++i) y.at[i] = a.at[i] | b.at[i];
  return y;
}
/// Integers of the table plus 128.
inline Codes look_up(const Codes& c) {
  Codes y;
  for (int i = 0; i < 64; ++i) y.at[i] = static_cast<uint8_t>(block_table()[c.at[i] & 15] + 128);
  return y;
}
/// Four activation codes.
inline Quad quad(const int8_t* p) {
  return p;
}

template <int Class>
using Prepared = Codes;
template <int Class>
inline const Codes& prepare(const Codes& c) {
  return c;
}

/// Sums of products of codes per row.
template <int Class, int Steps>
struct Product {
  Ints sums;
  void begin(int32_t start) {
    for (int32_t& s : sums.at) s = start;
  }
  template <int Step>
  void step(const Codes& w, Quad q) {
    for (int i = 0; i < kPanel; ++i) {
      const uint8_t* c = w.at + 4 * i;
      sums.at[i] += c[0] * q[0] + c[1] * q[1] + c[2] * q[2] + c[3] * q[3];
    }
  }
  const Ints& end() const { return sums; }
};

inline Floats zero_floats() {
  return Floats{};
}
inline Floats set_all(float x) {
  return each([&](int) { return x; });
}
inline Floats load_floats(const float* p, int64_t n) {
  Floats y{};
  for (int64_t i = 0; i < n; ++i) y.at[i] = p[i];
  return y;
}
inline void store_floats(float* p, const Floats& x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = x.at[i];
}
inline Floats load_halves(const uint8_t* p) {
  return each(
      [&](int i) { return to_float(Half{static_cast<uint16_t>(p[2 * i] | p[2 * i + 1] << 8)}); });
}
inline Floats from_int8(const uint8_t* p) {
  return each([&](int i) { return static_cast<float>(static_cast<int8_t>(p[i])); });
}
inline Floats from_uint8(const uint8_t* p) {
  return each([&](int i) { return static_cast<float>(p[i]); });
}
inline Floats low_nibbles(const uint8_t* p) {
  return each([&](int i) { return static_cast<float>(p[i] & 15); });
}
inline Floats high_nibbles(const uint8_t* p) {
  return each([&](int i) { return static_cast<float>(p[i] >> 4); });
}
inline Floats to_floats(const Ints& x) {
  return each([&](int i) { return static_cast<float>(x.at[i]); });
}
inline Floats negated(const Floats& x) {
  return each([&](int i) { return -x.at[i]; });
}
inline Floats multiply(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.at[i] * b.at[i]; });
}
/// a * b + c, rounded once.
inline Floats multiply_add(const Floats& a, const Floats& b, const Floats& c) {
  return each([&](int i) { return std::fma(a.at[i], b.at[i], c.at[i]); });
}
