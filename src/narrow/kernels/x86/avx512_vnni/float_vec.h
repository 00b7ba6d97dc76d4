// SPDX-License-Identifier: Apache-2.0
// Vectors of 16 floats, for the bodies that every instruction set shares (kernels/*_body.h).
// Included by files of this folder only, inside an anonymous namespace.
#pragma once

constexpr int64_t kWidth = 16;
constexpr int kOutputVectors = 4;  // of a row that P x V keeps in registers: 4 rows of them
using Vec = __m512;

inline Vec zeros() {
  return _mm512_setzero_ps();
}
inline Vec set1(float x) {
  return _mm512_set1_ps(x);
}
inline Vec load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline Vec load(const Float16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec widened(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline Vec load(const BrainFloat* p) {
  return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec load(const int8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline __mmask16 first(int64_t n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
/// The first n of a vector, then zeros; 0 < n < kWidth.
inline Vec load_part(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(first(n), p);
}
inline Vec load_part(const Float16* p, int64_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
}
inline Vec load_part(const BrainFloat* p, int64_t n) {
  return widened(_mm256_maskz_loadu_epi16(first(n), p));
}
inline Vec load_part(const int8_t* p, int64_t n) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(n), p)));
}
inline void store(float* p, Vec x) {
  _mm512_storeu_ps(p, x);
}
inline void store_part(float* p, Vec x, int64_t n) {
  _mm512_mask_storeu_ps(p, first(n), x);
}
/// a * b + c.
inline Vec multiply_add(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
/// b where one is NaN.
inline Vec larger(Vec a, Vec b) {
  return _mm512_max_ps(a, b);
}
inline Vec smaller(Vec a, Vec b) {
  return _mm512_min_ps(a, b);
}
/// x * 2^n for whole n in [-126, 127].
inline Vec scaled(Vec x, Vec n) {
  return _mm512_scalef_ps(x, n);
}
/// 0 where x < bound, else y.
inline Vec zero_below(Vec y, Vec x, Vec bound) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), y);
}
inline __m256 halves(Vec x) {
  return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
}
/// The sums of four vectors.
inline void store_sum4(float* p, Vec a, Vec b, Vec c, Vec d) {
  const __m256 t =
      _mm256_hadd_ps(_mm256_hadd_ps(halves(a), halves(b)), _mm256_hadd_ps(halves(c), halves(d)));
  _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1)));
}
