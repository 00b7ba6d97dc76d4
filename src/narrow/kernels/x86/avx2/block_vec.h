// SPDX-License-Identifier: Apache-2.0
// The 16 rows of a panel in two registers of 256 bits, for kernels/block_gemm_body.h. Included by
// this folder and, with vpdpbusd, by avx_vnni, inside an anonymous namespace.
//
// vpmaddubsw adds two products in 16 bits. Unsigned codes of b bits times [-127, 127] give at most
// 2 * 127 * (2^b - 1): 8 such results fit for b = 4 (30480), 4 for b = 5 (31496), 2 for b = 6
// (32004). Codes of 8 bits take |w - 128| times x with the sign of w - 128: at most 2 * 128 * 127 =
// 32512, and x is never -128.
#pragma once

#define NARROW_LAMBDA __attribute__((always_inline))

constexpr int64_t kTilePanels = 1;
#if defined(__AVXVNNI__)
/// Any code of 8 bits takes the same instruction.
constexpr int product_class(int) {
  return 8;
}
#else
constexpr int product_class(int bits) {
  return bits <= 4 ? 4 : bits;
}
#endif

constexpr int64_t bytes_ahead(int) {
  return 8192;
}

struct Codes {
  __m256i lo;
  __m256i hi;
};
using Ints = Codes;
struct Floats {
  __m256 lo;
  __m256 hi;
};
using Quad = __m256i;

inline __m256i load32(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline Codes load_codes(const uint8_t* p) {
  return {load32(p), load32(p + 32)};
}
inline void store_codes(uint8_t* p, const Codes& c) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), c.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), c.hi);
}
template <int From, int To, int Width>
inline __attribute__((always_inline)) __m256i field(__m256i c) {
  if constexpr (From > To) c = _mm256_srli_epi16(c, From - To);
  if constexpr (From < To) c = _mm256_slli_epi16(c, To - From);
  return _mm256_and_si256(c, _mm256_set1_epi8(((1 << Width) - 1) << To));
}
/// Width bits at From of each byte, moved to To.
template <int From, int To, int Width>
inline __attribute__((always_inline)) Codes field(const Codes& c) {
  return {field<From, To, Width>(c.lo), field<From, To, Width>(c.hi)};
}
inline Codes merge(const Codes& a, const Codes& b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
/// Integers of the table plus 128.
inline Codes look_up(const Codes& c) {
  const __m256i table = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, static_cast<char>(129), static_cast<char>(141),
                    static_cast<char>(153), static_cast<char>(166), static_cast<char>(181),
                    static_cast<char>(197), static_cast<char>(217), static_cast<char>(241)));
  return {_mm256_shuffle_epi8(table, c.lo), _mm256_shuffle_epi8(table, c.hi)};
}
/// Four activation codes for every row.
inline Quad quad(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

inline __m256i widened(__m256i pairs) {
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

#if defined(__AVXVNNI__)
template <int Class>
using Prepared = Codes;
template <int Class>
inline __attribute__((always_inline)) const Codes& prepare(const Codes& c) {
  return c;
}

/// Sums of products of codes per row.
template <int Class, int Steps>
struct Product {
  Ints sums;
  inline __attribute__((always_inline)) void begin(int32_t start) {
    sums = {_mm256_set1_epi32(start), _mm256_set1_epi32(start)};
  }
  template <int Step>
  inline __attribute__((always_inline)) void step(const Codes& w, Quad q) {
    sums = {_mm256_dpbusd_avx_epi32(sums.lo, w.lo, q), _mm256_dpbusd_avx_epi32(sums.hi, w.hi, q)};
  }
  inline __attribute__((always_inline)) Ints end() const { return sums; }
};
#else
struct Signed {
  Codes magnitude;
  Codes sign;
};
template <int Class>
struct PreparedOf {
  using Type = Codes;
};
template <>
struct PreparedOf<8> {
  using Type = Signed;
};
template <int Class>
using Prepared = typename PreparedOf<Class>::Type;

template <int Class>
inline __attribute__((always_inline)) Prepared<Class> prepare(const Codes& c) {
  if constexpr (Class == 8) {
    const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x80));
    const __m256i lo = _mm256_xor_si256(c.lo, flip);
    const __m256i hi = _mm256_xor_si256(c.hi, flip);
    return {{_mm256_abs_epi8(lo), _mm256_abs_epi8(hi)}, {lo, hi}};
  } else {
    return c;
  }
}

/// Sums of products of codes per row; `narrow` holds those of 16 bits.
template <int Class, int Steps>
struct Product {
  static constexpr int kFit = Class == 4 ? 8 : (Class == 5 ? 4 : 2);
  static constexpr int kWithin = kFit < Steps ? kFit : Steps;
  Codes narrow;
  Ints sums;
  int32_t base;

  inline __attribute__((always_inline)) void begin(int32_t start) { base = start; }
  template <int Step>
  inline __attribute__((always_inline)) void step(const Codes& w, Quad q) {
    const __m256i lo = _mm256_maddubs_epi16(w.lo, q);
    const __m256i hi = _mm256_maddubs_epi16(w.hi, q);
    if constexpr (Step % kWithin == 0) {
      narrow = {lo, hi};
    } else {
      narrow = {_mm256_add_epi16(narrow.lo, lo), _mm256_add_epi16(narrow.hi, hi)};
    }
    if constexpr (Step % kWithin + 1 == kWithin) {
      const Ints more{widened(narrow.lo), widened(narrow.hi)};
      if constexpr (Step < kWithin) {
        sums = more;
      } else {
        sums = {_mm256_add_epi32(sums.lo, more.lo), _mm256_add_epi32(sums.hi, more.hi)};
      }
    }
  }
  inline __attribute__((always_inline)) Ints end() const {
    const __m256i all = _mm256_set1_epi32(base);
    return {_mm256_add_epi32(sums.lo, all), _mm256_add_epi32(sums.hi, all)};
  }
};

/// Signed integers: the start, which corrects for unsigned ones, does not matter.
template <int Steps>
struct Product<8, Steps> {
  Ints sums;
  inline __attribute__((always_inline)) void begin(int32_t) {
    sums = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  }
  template <int Step>
  inline __attribute__((always_inline)) void step(const Signed& w, Quad q) {
    const __m256i lo = _mm256_maddubs_epi16(w.magnitude.lo, _mm256_sign_epi8(q, w.sign.lo));
    const __m256i hi = _mm256_maddubs_epi16(w.magnitude.hi, _mm256_sign_epi8(q, w.sign.hi));
    sums = {_mm256_add_epi32(sums.lo, widened(lo)), _mm256_add_epi32(sums.hi, widened(hi))};
  }
  inline __attribute__((always_inline)) Ints end() const { return sums; }
};

#endif  // __AVXVNNI__

inline Floats zero_floats() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
inline Floats set_all(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline Floats load_floats(const float* p, int64_t n) {
  if (n == kPanel) return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  float all[kPanel] = {};
  for (int64_t i = 0; i < n; ++i) all[i] = p[i];
  return {_mm256_loadu_ps(all), _mm256_loadu_ps(all + 8)};
}
inline void store_floats(float* p, const Floats& x, int64_t n) {
  if (n == kPanel) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
    return;
  }
  float all[kPanel];
  _mm256_storeu_ps(all, x.lo);
  _mm256_storeu_ps(all + 8, x.hi);
  for (int64_t i = 0; i < n; ++i) p[i] = all[i];
}
inline __m128i sixteen(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline Floats to_floats(const Ints& x) {
  return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)};
}
inline Ints widened8(__m128i x) {
  return {_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))};
}
inline Floats load_halves(const uint8_t* p) {
  return {_mm256_cvtph_ps(sixteen(p)), _mm256_cvtph_ps(sixteen(p + 16))};
}
inline Floats from_int8(const uint8_t* p) {
  const __m128i x = sixteen(p);
  return to_floats(Ints{_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))});
}
inline Floats from_uint8(const uint8_t* p) {
  return to_floats(widened8(sixteen(p)));
}
inline Floats low_nibbles(const uint8_t* p) {
  return to_floats(widened8(_mm_and_si128(sixteen(p), _mm_set1_epi8(15))));
}
inline Floats high_nibbles(const uint8_t* p) {
  return to_floats(widened8(_mm_and_si128(_mm_srli_epi16(sixteen(p), 4), _mm_set1_epi8(15))));
}
inline Floats negated(const Floats& x) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_xor_ps(x.lo, sign), _mm256_xor_ps(x.hi, sign)};
}
inline Floats multiply(const Floats& a, const Floats& b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
/// a * b + c, rounded once.
inline Floats multiply_add(const Floats& a, const Floats& b, const Floats& c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
