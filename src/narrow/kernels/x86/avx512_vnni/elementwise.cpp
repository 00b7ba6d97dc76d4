// SPDX-License-Identifier: Apache-2.0
// Elementwise work on 8-bit codes, 16 at a time in float and 64 at a time on bytes. Masked loads
// and stores touch no byte outside.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

inline __attribute__((always_inline)) __mmask16 mask16(int64_t left) {
  return left >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << left) - 1u);
}

inline __attribute__((always_inline)) __mmask64 mask64(int64_t left) {
  return left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
}

inline __attribute__((always_inline)) __m512i load_codes(const uint8_t* p, __mmask16 k,
                                                         __m128i flip) {
  return _mm512_cvtepu8_epi32(_mm_xor_si128(_mm_maskz_loadu_epi8(k, p), flip));
}

inline __attribute__((always_inline)) __m512 zero_where_nan(__m512 t) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(t, t, _CMP_ORD_Q), t);
}

/// Bounds, rounding and zero_point of what becomes codes.
struct Rounding {
  __m512 lo;
  __m512 hi;
  __m512i zero;
  __m512i order;

  template <class Args>
  explicit inline __attribute__((always_inline)) Rounding(const Args& args)
      : lo(_mm512_set1_ps(args.lo)),
        hi(_mm512_set1_ps(args.hi)),
        zero(_mm512_set1_epi32(args.zero_point)),
        order(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)) {}

  inline __attribute__((always_inline)) __m512i codes(__m512 t) const {
    t = _mm512_max_ps(_mm512_min_ps(t, hi), lo);
    return _mm512_add_epi32(_mm512_cvtps_epi32(t), zero);
  }
  inline __attribute__((always_inline)) void store(uint8_t* dst, __mmask16 k, __m512 t) const {
    _mm_mask_storeu_epi8(dst, k, _mm512_cvtepi32_epi8(codes(t)));
  }
  /// 64 codes; the packs keep low bytes that are masked first.
  inline __attribute__((always_inline)) void store64(uint8_t* dst, const __m512 (&t)[4]) const {
    const __m512i byte = _mm512_set1_epi32(0xff);
    __m512i v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[i] = _mm512_and_si512(codes(t[i]), byte);
    const __m512i packed =
        _mm512_packus_epi16(_mm512_packus_epi32(v[0], v[1]), _mm512_packus_epi32(v[2], v[3]));
    _mm512_storeu_si512(dst, _mm512_permutexvar_epi32(order, packed));
  }
};

/// dst[i] = code of real(i, mask) for 16 values from i on; 64 at a time where there are as many.
template <class Args, class Real>
inline __attribute__((always_inline)) void for_codes(uint8_t* dst, int64_t count, const Args& args,
                                                     const Real& real) {
  const Rounding rounding(args);
  const auto all = static_cast<__mmask16>(0xffff);
  int64_t i = 0;
  for (; i + 64 <= count; i += 64) {
    const __m512 t[4] = {real(i, all), real(i + 16, all), real(i + 32, all), real(i + 48, all)};
    rounding.store64(dst + i, t);
  }
  for (; i < count; i += 16) {
    const __mmask16 k = mask16(count - i);
    rounding.store(dst + i, k, real(i, k));
  }
}

template <Binary Op>
void run_binary(uint8_t* dst, const uint8_t* a, int64_t step_a, const uint8_t* b, int64_t step_b,
                int64_t count, const BinaryArgs& args) noexcept {
  const __m128i flip_a = _mm_set1_epi8(static_cast<char>(args.flip_a));
  const __m128i flip_b = _mm_set1_epi8(static_cast<char>(args.flip_b));
  const __m512i zero_a = _mm512_set1_epi32(args.zero_a);
  const __m512i zero_b = _mm512_set1_epi32(args.zero_b);
  const __m512 scale_a = _mm512_set1_ps(args.scale_a);
  const __m512 scale_b = _mm512_set1_ps(args.scale_b);
  __m512i one_a = _mm512_setzero_si512();
  __m512i one_b = _mm512_setzero_si512();
  if (step_a == 0 && count > 0) one_a = _mm512_set1_epi32((a[0] ^ args.flip_a) - args.zero_a);
  if (step_b == 0 && count > 0) one_b = _mm512_set1_epi32((b[0] ^ args.flip_b) - args.zero_b);
  for_codes(
      dst, count, args, [=](int64_t i, __mmask16 k) __attribute__((always_inline)) {
        const __m512i x =
            step_a == 0 ? one_a : _mm512_sub_epi32(load_codes(a + i, k, flip_a), zero_a);
        const __m512i y =
            step_b == 0 ? one_b : _mm512_sub_epi32(load_codes(b + i, k, flip_b), zero_b);
        if constexpr (Op == Binary::mul) {
          return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_mullo_epi32(x, y)), scale_a);
        } else if constexpr (Op == Binary::div) {
          const __m512 t = _mm512_div_ps(_mm512_cvtepi32_ps(x), _mm512_cvtepi32_ps(y));
          return zero_where_nan(_mm512_mul_ps(t, scale_a));
        } else {
          const __m512 fx = _mm512_mul_ps(_mm512_cvtepi32_ps(x), scale_a);
          const __m512 fy = _mm512_mul_ps(_mm512_cvtepi32_ps(y), scale_b);
          return Op == Binary::add ? _mm512_add_ps(fx, fy) : _mm512_sub_ps(fx, fy);
        }
      });
}

}  // namespace

void xor_copy(uint8_t* dst, const uint8_t* src, int64_t count, uint8_t mask) noexcept {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(mask));
  for (int64_t i = 0; i < count; i += 64) {
    const __mmask64 k = mask64(count - i);
    const __m512i x = _mm512_maskz_loadu_epi8(k, src + i);
    _mm512_mask_storeu_epi8(dst + i, k, _mm512_xor_si512(x, flip));
  }
}

void quantize(uint8_t* dst, const float* src, int64_t count, const QuantizeArgs& args) noexcept {
  const __m512 scale = _mm512_set1_ps(args.scale);
  for_codes(
      dst, count, args, [=](int64_t i, __mmask16 k) __attribute__((always_inline)) {
        return zero_where_nan(_mm512_div_ps(_mm512_maskz_loadu_ps(k, src + i), scale));
      });
}

void dequantize(float* dst, const uint8_t* src, int64_t count,
                const DequantizeArgs& args) noexcept {
  const __m512 scale = _mm512_set1_ps(args.scale);
  const __m512i zero = _mm512_set1_epi32(args.zero_point);
  const __m128i flip = _mm_set1_epi8(static_cast<char>(args.flip));
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 k = mask16(count - i);
    const __m512i x = _mm512_sub_epi32(load_codes(src + i, k, flip), zero);
    _mm512_mask_storeu_ps(dst + i, k, _mm512_mul_ps(_mm512_cvtepi32_ps(x), scale));
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
  __m512i part[16];  // 16 entries each, in every lane
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    part[i] =
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * i)));
  }
  const __m512i low = _mm512_set1_epi8(0x0f);
  for (int64_t i = 0; i < count; i += 64) {
    const __mmask64 k = mask64(count - i);
    const __m512i x = _mm512_maskz_loadu_epi8(k, src + i);
    const __m512i index = _mm512_and_si512(x, low);
    // A tree of blends: bit 4 chooses between neighbours, bit 7 between halves.
    const __mmask64 b4 = _mm512_test_epi8_mask(x, _mm512_set1_epi8(0x10));
    const __mmask64 b5 = _mm512_test_epi8_mask(x, _mm512_set1_epi8(0x20));
    const __mmask64 b6 = _mm512_test_epi8_mask(x, _mm512_set1_epi8(0x40));
    const __mmask64 b7 = _mm512_movepi8_mask(x);
    __m512i v[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m512i even = _mm512_shuffle_epi8(part[2 * j], index);
      v[j] = _mm512_mask_shuffle_epi8(even, b4, part[2 * j + 1], index);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) v[j] = _mm512_mask_blend_epi8(b5, v[2 * j], v[2 * j + 1]);
    v[0] = _mm512_mask_blend_epi8(b6, v[0], v[1]);
    v[1] = _mm512_mask_blend_epi8(b6, v[2], v[3]);
    _mm512_mask_storeu_epi8(dst + i, k, _mm512_mask_blend_epi8(b7, v[0], v[1]));
  }
}

void max_pool(const WindowArgs& args) noexcept {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(args.flip));
  for (int64_t c = 0; c < args.channels; c += 64) {
    const __mmask64 k = mask64(args.channels - c);
    for (int64_t r = 0; r < args.m; ++r) {
      const uint8_t* row = args.rows[r] + c;
      __m512i best = _mm512_setzero_si512();
      for (int64_t t = 0; t < args.num_taps; ++t) {
        const __m512i x = _mm512_maskz_loadu_epi8(k, row + args.taps[t]);
        best = _mm512_max_epu8(best, _mm512_xor_si512(x, flip));
      }
      _mm512_mask_storeu_epi8(args.dst + r * args.ldc + c, k, _mm512_xor_si512(best, flip));
    }
  }
}

void average_pool(const WindowArgs& args, const AverageArgs& average) noexcept {
  const Rounding rounding(average);
  const __m128i flip = _mm_set1_epi8(static_cast<char>(args.flip));
  const __m512 multiplier = _mm512_set1_ps(average.multiplier);
  for (int64_t c = 0; c < args.channels; c += 16) {
    const __mmask16 k = mask16(args.channels - c);
    for (int64_t r = 0; r < args.m; ++r) {
      const uint8_t* row = args.rows[r] + c;
      __m512i acc = _mm512_set1_epi32(average.corr);
      for (int64_t t = 0; t < args.num_taps; ++t) {
        acc = _mm512_add_epi32(acc, load_codes(row + args.taps[t], k, flip));
      }
      const __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier);
      rounding.store(args.dst + r * args.ldc + c, k, t);
    }
  }
}

void range(const float* src, int64_t count, float* lo, float* hi) noexcept {
  __m512 low = _mm512_set1_ps(*lo);
  __m512 high = _mm512_set1_ps(*hi);
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 k = mask16(count - i);
    const __m512 x = _mm512_maskz_loadu_ps(k, src + i);
    // The second operand is what NaN leaves.
    low = _mm512_mask_min_ps(low, k, x, low);
    high = _mm512_mask_max_ps(high, k, x, high);
  }
  alignas(64) float lows[16];
  alignas(64) float highs[16];
  _mm512_store_ps(lows, low);
  _mm512_store_ps(highs, high);
  for (int i = 0; i < 16; ++i) {
    *lo = lows[i] < *lo ? lows[i] : *lo;
    *hi = highs[i] > *hi ? highs[i] : *hi;
  }
}

void scale_row(float* dst, const int32_t* src, int64_t n, const ScaleRowArgs& args) noexcept {
  const __m512i zero = _mm512_set1_epi32(args.zero_point);
  const __m512d scale = _mm512_set1_pd(static_cast<double>(args.scale));
  for (int64_t c = 0; c < n; c += 16) {
    const __mmask16 k = mask16(n - c);
    const __m512i column = _mm512_maskz_loadu_epi32(k, args.column + c);
    const __m512i acc =
        _mm512_sub_epi32(_mm512_maskz_loadu_epi32(k, src + c), _mm512_mullo_epi32(zero, column));
    const __m512 w = _mm512_maskz_loadu_ps(k, args.scale_w + c);
    const __m256 lo =
        _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(w)), scale));
    const __m256 hi =
        _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(w, 1)), scale));
    const __m512 multiplier = _mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1);
    __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier);
    if (args.bias != nullptr) t = _mm512_add_ps(t, _mm512_maskz_loadu_ps(k, args.bias + c));
    _mm512_mask_storeu_ps(dst + c, k, t);
  }
}

}  // namespace narrow::kernels::avx512_vnni
#endif
