// SPDX-License-Identifier: Apache-2.0
// The 16 rows of a panel in one register of 512 bits, for kernels/block_gemm_body.h. Included by
// files of this folder only, inside an anonymous namespace.
#pragma once

#define NARROW_LAMBDA __attribute__((always_inline))

constexpr int64_t kTilePanels = 2;
/// Any code of 8 bits takes the same instruction.
constexpr int product_class(int) {
  return 8;
}

/// Unpacking takes time in which the prefetcher of the hardware falls behind; without unpacking it
/// needs little help.
constexpr int64_t bytes_ahead(int bits) {
  return bits == 8 ? 2048 : 8192;
}

using Codes = __m512i;
using Ints = __m512i;
using Floats = __m512;
using Quad = __m512i;

inline Codes load_codes(const uint8_t* p) {
  return _mm512_loadu_si512(p);
}
inline void store_codes(uint8_t* p, Codes c) {
  _mm512_storeu_si512(p, c);
}
/// Width bits at From of each byte, moved to To.
template <int From, int To, int Width>
inline __attribute__((always_inline)) Codes field(Codes c) {
  if constexpr (From > To) c = _mm512_srli_epi16(c, From - To);
  if constexpr (From < To) c = _mm512_slli_epi16(c, To - From);
  return _mm512_and_si512(c, _mm512_set1_epi8(((1 << Width) - 1) << To));
}
inline Codes merge(Codes a, Codes b) {
  return _mm512_or_si512(a, b);
}
/// Integers of the table plus 128.
inline Codes look_up(Codes c) {
  const __m128i table =
      _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, static_cast<char>(129), static_cast<char>(141),
                    static_cast<char>(153), static_cast<char>(166), static_cast<char>(181),
                    static_cast<char>(197), static_cast<char>(217), static_cast<char>(241));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), c);
}
/// Four activation codes for every row.
inline Quad quad(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

template <int Class>
using Prepared = Codes;
template <int Class>
inline Codes prepare(Codes c) {
  return c;
}

/// Sums of products of codes per row.
template <int Class, int Steps>
struct Product {
  __m512i sums;
  inline __attribute__((always_inline)) void begin(int32_t start) {
    sums = _mm512_set1_epi32(start);
  }
  template <int Step>
  inline __attribute__((always_inline)) void step(Codes w, Quad q) {
    sums = _mm512_dpbusd_epi32(sums, w, q);
  }
  inline __attribute__((always_inline)) Ints end() const { return sums; }
};

inline Floats zero_floats() {
  return _mm512_setzero_ps();
}
inline Floats set_all(float x) {
  return _mm512_set1_ps(x);
}
inline __mmask16 lanes(int64_t n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
inline Floats load_floats(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(lanes(n), p);
}
inline void store_floats(float* p, Floats x, int64_t n) {
  _mm512_mask_storeu_ps(p, lanes(n), x);
}
inline __m128i sixteen(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline Floats load_halves(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Floats from_int8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen(p)));
}
inline Floats from_uint8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen(p)));
}
inline Floats low_nibbles(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_and_si512(_mm512_cvtepu8_epi32(sixteen(p)), _mm512_set1_epi32(15)));
}
inline Floats high_nibbles(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_cvtepu8_epi32(sixteen(p)), 4));
}
inline Floats to_floats(Ints x) {
  return _mm512_cvtepi32_ps(x);
}
inline Floats negated(Floats x) {
  return _mm512_xor_ps(x, _mm512_set1_ps(-0.0F));
}
inline Floats multiply(Floats a, Floats b) {
  return _mm512_mul_ps(a, b);
}
/// a * b + c, rounded once.
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return _mm512_fmadd_ps(a, b, c);
}
