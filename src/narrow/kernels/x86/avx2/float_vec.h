// SPDX-License-Identifier: Apache-2.0
// Vectors of 8 floats, for the bodies that every instruction set shares (kernels/*_body.h).
// Included by files of this folder only, inside an anonymous namespace.
#pragma once

constexpr int64_t kWidth = 8;
constexpr int kOutputVectors = 2;  // of a row that P x V keeps in registers: 4 rows of them
using Vec = __m256;

inline Vec zeros() {
  return _mm256_setzero_ps();
}
inline Vec set1(float x) {
  return _mm256_set1_ps(x);
}
inline Vec load(const float* p) {
  return _mm256_loadu_ps(p);
}
inline Vec load(const Float16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec load(const BrainFloat* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline Vec load(const int8_t* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
/// The first n of a vector, then zeros; 0 < n < kWidth.
template <class T>
inline Vec load_part(const T* p, int64_t n) {
  T whole[kWidth] = {};
  for (int64_t i = 0; i < n; ++i) whole[i] = p[i];
  return load(whole);
}
inline void store(float* p, Vec x) {
  _mm256_storeu_ps(p, x);
}
inline void store_part(float* p, Vec x, int64_t n) {
  float whole[kWidth];
  store(whole, x);
  for (int64_t i = 0; i < n; ++i) p[i] = whole[i];
}
/// a * b + c.
inline Vec multiply_add(Vec a, Vec b, Vec c) {
  return _mm256_fmadd_ps(a, b, c);
}
/// b where one is NaN.
inline Vec larger(Vec a, Vec b) {
  return _mm256_max_ps(a, b);
}
inline Vec smaller(Vec a, Vec b) {
  return _mm256_min_ps(a, b);
}
/// x * 2^n for whole n in [-126, 127].
inline Vec scaled(Vec x, Vec n) {
  const __m256i bits =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(x, _mm256_castsi256_ps(bits));
}
/// 0 where x < bound, else y.
inline Vec zero_below(Vec y, Vec x, Vec bound) {
  return _mm256_andnot_ps(_mm256_cmp_ps(x, bound, _CMP_LT_OQ), y);
}
/// The sums of four vectors.
inline __m128 sum4(Vec a, Vec b, Vec c, Vec d) {
  const __m256 t = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
}
inline void store_sum4(float* p, Vec a, Vec b, Vec c, Vec d) {
  _mm_storeu_ps(p, sum4(a, b, c, d));
}
