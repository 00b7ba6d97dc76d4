// SPDX-License-Identifier: Apache-2.0
// Elementwise work on 8-bit codes, 8 at a time in float and 32 at a time on bytes; ragged ends go
// through a small buffer, so that no byte outside is touched.
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

/// The first `count` (at most 8) bytes as int32, after the flip.
inline __attribute__((always_inline)) __m256i load_codes(const uint8_t* p, int64_t count,
                                                         __m128i flip) {
  __m128i x = _mm_setzero_si128();
  if (count >= 8) {
    x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  } else {
    __builtin_memcpy(&x, p, static_cast<size_t>(count));
  }
  return _mm256_cvtepu8_epi32(_mm_xor_si128(x, flip));
}

/// The first `count` (at most 32) bytes.
inline __attribute__((always_inline)) __m256i load_bytes(const uint8_t* p, int64_t count) {
  if (count >= 32) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  __m256i x = _mm256_setzero_si256();
  __builtin_memcpy(&x, p, static_cast<size_t>(count));
  return x;
}

inline __attribute__((always_inline)) void store_bytes(uint8_t* p, __m256i x, int64_t count) {
  if (count >= 32) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
  } else {
    __builtin_memcpy(p, &x, static_cast<size_t>(count));
  }
}

inline __attribute__((always_inline)) __m256 zero_where_nan(__m256 t) {
  return _mm256_and_ps(_mm256_cmp_ps(t, t, _CMP_ORD_Q), t);
}

/// Bounds, rounding and zero_point of what becomes codes.
struct Rounding {
  __m256 lo;
  __m256 hi;
  __m256i zero;

  template <class Args>
  explicit inline __attribute__((always_inline)) Rounding(const Args& args)
      : lo(_mm256_set1_ps(args.lo)),
        hi(_mm256_set1_ps(args.hi)),
        zero(_mm256_set1_epi32(args.zero_point)) {}

  inline __attribute__((always_inline)) void store(uint8_t* dst, int64_t count, __m256 t) const {
    t = _mm256_max_ps(_mm256_min_ps(t, hi), lo);
    const __m256i code =
        _mm256_and_si256(_mm256_add_epi32(_mm256_cvtps_epi32(t), zero), _mm256_set1_epi32(0xff));
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    const long long packed = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
    if (count >= 8) {
      __builtin_memcpy(dst, &packed, 8);
    } else {
      __builtin_memcpy(dst, &packed, static_cast<size_t>(count));
    }
  }
};

template <Binary Op>
void run_binary(uint8_t* dst, const uint8_t* a, int64_t step_a, const uint8_t* b, int64_t step_b,
                int64_t count, const BinaryArgs& args) noexcept {
  const Rounding rounding(args);
  const __m128i flip_a = _mm_set1_epi8(static_cast<char>(args.flip_a));
  const __m128i flip_b = _mm_set1_epi8(static_cast<char>(args.flip_b));
  const __m256i zero_a = _mm256_set1_epi32(args.zero_a);
  const __m256i zero_b = _mm256_set1_epi32(args.zero_b);
  const __m256 scale_a = _mm256_set1_ps(args.scale_a);
  const __m256 scale_b = _mm256_set1_ps(args.scale_b);
  __m256i x = _mm256_setzero_si256();
  __m256i y = _mm256_setzero_si256();
  if (step_a == 0 && count > 0) x = _mm256_set1_epi32((a[0] ^ args.flip_a) - args.zero_a);
  if (step_b == 0 && count > 0) y = _mm256_set1_epi32((b[0] ^ args.flip_b) - args.zero_b);
  for (int64_t i = 0; i < count; i += 8) {
    const int64_t left = count - i;
    if (step_a != 0) x = _mm256_sub_epi32(load_codes(a + i, left, flip_a), zero_a);
    if (step_b != 0) y = _mm256_sub_epi32(load_codes(b + i, left, flip_b), zero_b);
    __m256 t;
    if constexpr (Op == Binary::mul) {
      t = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_mullo_epi32(x, y)), scale_a);
    } else if constexpr (Op == Binary::div) {
      t = _mm256_div_ps(_mm256_cvtepi32_ps(x), _mm256_cvtepi32_ps(y));
      t = zero_where_nan(_mm256_mul_ps(t, scale_a));
    } else {
      const __m256 fx = _mm256_mul_ps(_mm256_cvtepi32_ps(x), scale_a);
      const __m256 fy = _mm256_mul_ps(_mm256_cvtepi32_ps(y), scale_b);
      t = Op == Binary::add ? _mm256_add_ps(fx, fy) : _mm256_sub_ps(fx, fy);
    }
    rounding.store(dst + i, left, t);
  }
}

inline __attribute__((always_inline)) __m128i load16(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

inline __attribute__((always_inline)) void store16(uint8_t* p, __m128i v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v);
}

inline __attribute__((always_inline)) void interleave2(uint8_t* dst, const uint8_t* src,
                                                       int64_t pitch) {
  const __m128i a = load16(src);
  const __m128i b = load16(src + pitch);
  store16(dst, _mm_unpacklo_epi8(a, b));
  store16(dst + 16, _mm_unpackhi_epi8(a, b));
}

inline __attribute__((always_inline)) void interleave4(uint8_t* dst, const uint8_t* src,
                                                       int64_t pitch) {
  const __m128i a = load16(src);
  const __m128i b = load16(src + pitch);
  const __m128i c = load16(src + 2 * pitch);
  const __m128i d = load16(src + 3 * pitch);
  const __m128i ab[2] = {_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)};
  const __m128i cd[2] = {_mm_unpacklo_epi8(c, d), _mm_unpackhi_epi8(c, d)};
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    store16(dst + 32 * i, _mm_unpacklo_epi16(ab[i], cd[i]));
    store16(dst + 32 * i + 16, _mm_unpackhi_epi16(ab[i], cd[i]));
  }
}

/// Byte i of the 48 is pixel i / 3 of plane i % 3.
inline __attribute__((always_inline)) void interleave3(uint8_t* dst, const uint8_t* src,
                                                       int64_t pitch) {
  // Which pixel of a plane goes to each byte, -1: none.
  const __m128i a_of[3] = {
      _mm_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5),
      _mm_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1),
      _mm_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1)};
  const __m128i b_of[3] = {
      _mm_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1),
      _mm_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10),
      _mm_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1)};
  const __m128i c_of[3] = {
      _mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1),
      _mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1),
      _mm_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15)};
  const __m128i a = load16(src);
  const __m128i b = load16(src + pitch);
  const __m128i c = load16(src + 2 * pitch);
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    const __m128i ab = _mm_or_si128(_mm_shuffle_epi8(a, a_of[i]), _mm_shuffle_epi8(b, b_of[i]));
    store16(dst + 16 * i, _mm_or_si128(ab, _mm_shuffle_epi8(c, c_of[i])));
  }
}

}  // namespace

void xor_copy(uint8_t* dst, const uint8_t* src, int64_t count, uint8_t mask) noexcept {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(mask));
  for (int64_t i = 0; i < count; i += 32) {
    store_bytes(dst + i, _mm256_xor_si256(load_bytes(src + i, count - i), flip), count - i);
  }
}

void quantize(uint8_t* dst, const float* src, int64_t count, const QuantizeArgs& args) noexcept {
  const Rounding rounding(args);
  const __m256 scale = _mm256_set1_ps(args.scale);
  for (int64_t i = 0; i < count; i += 8) {
    const int64_t left = count - i;
    __m256 x = _mm256_setzero_ps();
    if (left >= 8) {
      x = _mm256_loadu_ps(src + i);
    } else {
      __builtin_memcpy(&x, src + i, static_cast<size_t>(left) * 4);
    }
    rounding.store(dst + i, left, zero_where_nan(_mm256_div_ps(x, scale)));
  }
}

void interleave(uint8_t* dst, const uint8_t* src, int64_t pitch, int64_t planes,
                int64_t pixels) noexcept {
  int64_t p = 0;
  for (; p + 16 <= pixels; p += 16) {
    if (planes == 2) interleave2(dst + 2 * p, src + p, pitch);
    if (planes == 3) interleave3(dst + 3 * p, src + p, pitch);
    if (planes == 4) interleave4(dst + 4 * p, src + p, pitch);
  }
  for (; p < pixels; ++p) {
    for (int64_t j = 0; j < planes; ++j) dst[planes * p + j] = src[j * pitch + p];
  }
}

void dequantize(float* dst, const uint8_t* src, int64_t count,
                const DequantizeArgs& args) noexcept {
  const __m256 scale = _mm256_set1_ps(args.scale);
  const __m256i zero = _mm256_set1_epi32(args.zero_point);
  const __m128i flip = _mm_set1_epi8(static_cast<char>(args.flip));
  for (int64_t i = 0; i < count; i += 8) {
    const int64_t left = count - i;
    const __m256i x = _mm256_sub_epi32(load_codes(src + i, left, flip), zero);
    const __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(x), scale);
    if (left >= 8) {
      _mm256_storeu_ps(dst + i, y);
    } else {
      __builtin_memcpy(dst + i, &y, static_cast<size_t>(left) * 4);
    }
  }
}

void binary(uint8_t* dst, const uint8_t* a, int64_t step_a, const uint8_t* b, int64_t step_b,
            int64_t count, const BinaryArgs& args) noexcept {
  switch (args.op) {
    case Binary::add:
      return run_binary<Binary::add>(dst, a, step_a, b, step_b, count, args);
    case Binary::sub:
      return run_binary<Binary::sub>(dst, a, step_a, b, step_b, count, args);
    case Binary::mul:
      return run_binary<Binary::mul>(dst, a, step_a, b, step_b, count, args);
    case Binary::div:
      return run_binary<Binary::div>(dst, a, step_a, b, step_b, count, args);
  }
}

void lookup(uint8_t* dst, const uint8_t* src, int64_t count, const uint8_t* table) noexcept {
  const __m256i low = _mm256_set1_epi8(0x0f);
  for (int64_t i = 0; i < count; i += 32) {
    const __m256i x = load_bytes(src + i, count - i);
    const __m256i index = _mm256_and_si256(x, low);
    // A tree of blends by the bits 4 to 7, each moved to the sign position in turn.
    const __m256i b4 = _mm256_slli_epi16(x, 3);
    const __m256i b5 = _mm256_slli_epi16(x, 2);
    const __m256i b6 = _mm256_slli_epi16(x, 1);
    __m256i v[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) {
      const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * j));
      v[j] = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(part), index);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) v[j] = _mm256_blendv_epi8(v[2 * j], v[2 * j + 1], b4);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) v[j] = _mm256_blendv_epi8(v[2 * j], v[2 * j + 1], b5);
    v[0] = _mm256_blendv_epi8(v[0], v[1], b6);
    v[1] = _mm256_blendv_epi8(v[2], v[3], b6);
    store_bytes(dst + i, _mm256_blendv_epi8(v[0], v[1], x), count - i);
  }
}

void max_pool(const WindowArgs& args) noexcept {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(args.flip));
  for (int64_t c = 0; c < args.channels; c += 32) {
    const int64_t left = args.channels - c;
    for (int64_t r = 0; r < args.m; ++r) {
      const uint8_t* row = args.rows[r] + c;
      __m256i best = _mm256_setzero_si256();
      for (int64_t t = 0; t < args.num_taps; ++t) {
        const __m256i x = load_bytes(row + args.taps[t], left);
        best = _mm256_max_epu8(best, _mm256_xor_si256(x, flip));
      }
      store_bytes(args.dst + r * args.ldc + c, _mm256_xor_si256(best, flip), left);
    }
  }
}

void average_pool(const WindowArgs& args, const AverageArgs& average) noexcept {
  const Rounding rounding(average);
  const __m128i flip = _mm_set1_epi8(static_cast<char>(args.flip));
  const __m256 multiplier = _mm256_set1_ps(average.multiplier);
  for (int64_t c = 0; c < args.channels; c += 8) {
    const int64_t left = args.channels - c;
    for (int64_t r = 0; r < args.m; ++r) {
      const uint8_t* row = args.rows[r] + c;
      __m256i acc = _mm256_set1_epi32(average.corr);
      for (int64_t t = 0; t < args.num_taps; ++t) {
        acc = _mm256_add_epi32(acc, load_codes(row + args.taps[t], left, flip));
      }
      const __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), multiplier);
      rounding.store(args.dst + r * args.ldc + c, left, t);
    }
  }
}

void range(const float* src, int64_t count, float* lo, float* hi) noexcept {
  __m256 low = _mm256_set1_ps(*lo);
  __m256 high = _mm256_set1_ps(*hi);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 x = _mm256_loadu_ps(src + i);
    // The second operand is what NaN leaves.
    low = _mm256_min_ps(x, low);
    high = _mm256_max_ps(x, high);
  }
  alignas(32) float lows[8];
  alignas(32) float highs[8];
  _mm256_store_ps(lows, low);
  _mm256_store_ps(highs, high);
  for (int j = 0; j < 8; ++j) {
    *lo = lows[j] < *lo ? lows[j] : *lo;
    *hi = highs[j] > *hi ? highs[j] : *hi;
  }
  for (; i < count; ++i) {
    *lo = src[i] < *lo ? src[i] : *lo;
    *hi = src[i] > *hi ? src[i] : *hi;
  }
}

void scale_row(float* dst, const int32_t* src, int64_t n, const ScaleRowArgs& args) noexcept {
  const double scale = static_cast<double>(args.scale);
  const __m256d scale4 = _mm256_set1_pd(scale);
  const __m256i zero = _mm256_set1_epi32(args.zero_point);
  int64_t c = 0;
  for (; c + 8 <= n; c += 8) {
    const __m256i column = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(args.column + c));
    const __m256i sum = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + c));
    const __m256i acc = _mm256_sub_epi32(sum, _mm256_mullo_epi32(zero, column));
    const __m128 lo =
        _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(args.scale_w + c)), scale4));
    const __m128 hi =
        _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(args.scale_w + c + 4)), scale4));
    const __m256 multiplier = _mm256_set_m128(hi, lo);
    __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), multiplier);
    if (args.bias != nullptr) t = _mm256_add_ps(t, _mm256_loadu_ps(args.bias + c));
    _mm256_storeu_ps(dst + c, t);
  }
  for (; c < n; ++c) {
    const uint32_t shift =
        static_cast<uint32_t>(args.zero_point) * static_cast<uint32_t>(args.column[c]);
    const auto acc = static_cast<int32_t>(static_cast<uint32_t>(src[c]) - shift);
    const auto multiplier = static_cast<float>(scale * static_cast<double>(args.scale_w[c]));
    const float t = static_cast<float>(acc) * multiplier;
    dst[c] = args.bias == nullptr ? t : t + args.bias[c];
  }
}

}  // namespace narrow::kernels::avx2
#endif
