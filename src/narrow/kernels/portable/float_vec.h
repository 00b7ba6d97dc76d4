// SPDX-License-Identifier: Apache-2.0
// Vectors of 4 floats in plain C++, for the bodies that every instruction set shares
// (kernels/*_body.h). Included by files of this folder only, inside an anonymous namespace.
#pragma once

constexpr int64_t kWidth = 4;
constexpr int kOutputVectors = 2;  // of a row that P x V keeps in registers: 4 rows of them

struct Vec {
  float lane[kWidth];
};

template <class Function>
inline Vec each(const Function& function) {
  Vec y;
  for (int64_t i = 0; i < kWidth; ++i) y.lane[i] = function(i);
  return y;
}
inline Vec operator+(Vec a, Vec b) {
  return each([&](int64_t i) { return a.lane[i] + b.lane[i]; });
}
inline Vec operator-(Vec a, Vec b) {
  return each([&](int64_t i) { return a.lane[i] - b.lane[i]; });
}
inline Vec operator*(Vec a, Vec b) {
  return each([&](int64_t i) { return a.lane[i] * b.lane[i]; });
}
inline Vec operator/(Vec a, Vec b) {
  return each([&](int64_t i) { return a.lane[i] / b.lane[i]; });
}
inline Vec zeros() {
  return Vec{};
}
inline Vec set1(float x) {
  return each([&](int64_t) { return x; });
}
inline float value_of(float x) {
  return x;
}
/// The bits of the number times 2^-112, subnormals included; infinity and NaN have an exponent of
/// their own.
inline float value_of(Float16 x) {
  const uint32_t magnitude = (x.bits & 0x7fffU) << 13;
  const bool finite = magnitude < 0x0f800000U;
  const float value = finite ? std::bit_cast<float>(magnitude) * 0x1p112F
                             : std::bit_cast<float>(magnitude | 0x7f800000U);
  return (x.bits & 0x8000U) != 0 ? -value : value;
}
inline float value_of(BrainFloat x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}
inline float value_of(int8_t x) {
  return static_cast<float>(x);
}
template <class T>
inline Vec load(const T* p) {
  return each([&](int64_t i) { return value_of(p[i]); });
}
/// The first n of a vector, then zeros; 0 < n < kWidth.
template <class T>
inline Vec load_part(const T* p, int64_t n) {
  return each([&](int64_t i) { return i < n ? value_of(p[i]) : 0.0F; });
}
inline void store(float* p, Vec x) {
  for (int64_t i = 0; i < kWidth; ++i) p[i] = x.lane[i];
}
inline void store_part(float* p, Vec x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = x.lane[i];
}
/// a * b + c.
inline Vec multiply_add(Vec a, Vec b, Vec c) {
  return a * b + c;
}
/// b where one is NaN.
inline Vec larger(Vec a, Vec b) {
  return each([&](int64_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec smaller(Vec a, Vec b) {
  return each([&](int64_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
/// x * 2^n for whole n in [-126, 127].
inline Vec scaled(Vec x, Vec n) {
  return each([&](int64_t i) {
    // NaN is no number of steps: x is NaN then too.
    const int32_t steps = n.lane[i] == n.lane[i] ? static_cast<int32_t>(n.lane[i]) : 0;
    return x.lane[i] * std::bit_cast<float>((steps + 127) << 23);
  });
}
/// 0 where x < bound, else y.
inline Vec zero_below(Vec y, Vec x, Vec bound) {
  return each([&](int64_t i) { return x.lane[i] < bound.lane[i] ? 0.0F : y.lane[i]; });
}
inline float sum(Vec x) {
  return (x.lane[0] + x.lane[2]) + (x.lane[1] + x.lane[3]);
}
/// The sums of four vectors.
inline void store_sum4(float* p, Vec a, Vec b, Vec c, Vec d) {
  p[0] = sum(a);
  p[1] = sum(b);
  p[2] = sum(c);
  p[3] = sum(d);
}
