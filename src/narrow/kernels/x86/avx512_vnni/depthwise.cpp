// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution: 64 channels at once. Four taps are interleaved bytewise by two levels of
// unpacking, so that vpdpbusd sums them per channel; packing the sums again undoes the order.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "narrow/kernels/x86/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

struct Sums {
  __m512i v[4];  // [j]: channel 16 * lane + 4 * j + i in lane, i
};

inline __attribute__((always_inline)) __mmask64 channels_mask(int64_t left) {
  return left >= kDepthBlock ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
}

inline __attribute__((always_inline)) Sums load_sums(const int32_t* p) {
  Sums s;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) s.v[j] = _mm512_loadu_si512(p + 16 * j);
  return s;
}

/// Four taps of 64 channels, interleaved: [j] as in Sums, four bytes per channel.
inline __attribute__((always_inline)) Sums interleave(__m512i x0, __m512i x1, __m512i x2,
                                                      __m512i x3) {
  const __m512i lo01 = _mm512_unpacklo_epi8(x0, x1);
  const __m512i hi01 = _mm512_unpackhi_epi8(x0, x1);
  const __m512i lo23 = _mm512_unpacklo_epi8(x2, x3);
  const __m512i hi23 = _mm512_unpackhi_epi8(x2, x3);
  return {{_mm512_unpacklo_epi16(lo01, lo23), _mm512_unpackhi_epi16(lo01, lo23),
           _mm512_unpacklo_epi16(hi01, hi23), _mm512_unpackhi_epi16(hi01, hi23)}};
}

/// acc += x * w, w: 256 bytes of weights.
inline __attribute__((always_inline)) void add(Sums& acc, const Sums& x, const int8_t* w) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    acc.v[j] = _mm512_dpbusd_epi32(acc.v[j], x.v[j], _mm512_loadu_si512(w + 64 * j));
  }
}

/// What the outputs of one block of channels share. Codes are made as bytes in [0, 255], int8 ones
/// 128 higher until the last step; saturating packs do what the lower bound asks.
struct Output {
  Epilogue e;  // its arrays begin at the block
  std::byte* dst;
  __mmask64 mask;
  __m512 hi;
  __m512i zero;  // 16-bit
  __m512i lowest;
  __m512i flip;

  inline __attribute__((always_inline))
  Output(const Epilogue& epilogue, int64_t at, void* to, int64_t c, int64_t left)
      : e(epilogue), mask(channels_mask(left)) {
    const int64_t element = e.out == Out::codes ? 1 : 4;
    dst = static_cast<std::byte*>(to) + c * element;
    e.corr += at;
    if (e.multiplier != nullptr) e.multiplier += at;
    if (e.bias != nullptr) e.bias += at;
    const int zero_byte = e.zero_point + e.flip;
    hi = _mm512_set1_ps(e.hi);
    zero = _mm512_set1_epi16(static_cast<short>(zero_byte));
    lowest = _mm512_set1_epi8(
        e.out == Out::codes ? static_cast<char>(static_cast<int>(e.lo) + zero_byte) : char{0});
    flip = _mm512_set1_epi8(static_cast<char>(e.flip));
  }
};

inline __attribute__((always_inline)) void store_codes(const Output& o, const Sums& acc,
                                                       int64_t offset) {
  __m512i t[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512 m = _mm512_loadu_ps(o.e.multiplier + 16 * j);
    const __m512 real = _mm512_mul_ps(_mm512_cvtepi32_ps(acc.v[j]), m);
    t[j] = _mm512_cvtps_epi32(_mm512_min_ps(real, o.hi));
  }
  const __m512i a = _mm512_adds_epi16(_mm512_packs_epi32(t[0], t[1]), o.zero);
  const __m512i b = _mm512_adds_epi16(_mm512_packs_epi32(t[2], t[3]), o.zero);
  const __m512i bytes = _mm512_max_epu8(_mm512_packus_epi16(a, b), o.lowest);
  _mm512_mask_storeu_epi8(o.dst + offset, o.mask, _mm512_xor_si512(bytes, o.flip));
}

/// Floats and sums, channel by channel. From memory, so that the callers' sums stay in registers.
void store_wide(const Output& o, const int32_t* sums, int64_t offset) {
  alignas(64) int32_t all[kDepthBlock];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    __m512i v = _mm512_load_si512(sums + 16 * j);
    if (o.e.out == Out::f32) {
      __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(v), _mm512_loadu_ps(o.e.multiplier + 16 * j));
      if (o.e.bias != nullptr) t = _mm512_add_ps(t, _mm512_loadu_ps(o.e.bias + 16 * j));
      t = _mm512_max_ps(_mm512_min_ps(t, o.hi), _mm512_set1_ps(o.e.lo));
      v = _mm512_castps_si512(t);
    }
    _mm512_store_si512(all + 16 * j, v);
  }
  auto* dst = reinterpret_cast<int32_t*>(o.dst) + offset;
  for (int i = 0; i < kDepthBlock && (o.mask >> i & 1) != 0; ++i) {
    dst[i] = all[i / 4 % 4 * 16 + i / 16 * 4 + i % 4];
  }
}

inline __attribute__((always_inline)) void store(const Output& o, const Sums& acc, int64_t offset) {
  if (o.e.out == Out::codes) {
    store_codes(o, acc, offset);
    return;
  }
  alignas(64) int32_t sums[kDepthBlock];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) _mm512_store_si512(sums + 16 * j, acc.v[j]);
  store_wide(o, sums, offset);
}

/// A row of outputs, column by column of the input: what is interleaved once serves every output
/// whose window covers the column. KW columns (odd), stride S, G groups of kernel rows.
template <int KW, int S, int G>
void run_row(const DepthwiseRowArgs& g) noexcept {
  constexpr int kLive = (KW + S - 1) / S;  // outputs under way
  for (int64_t c = 0; c < g.channels; c += kDepthBlock) {
    const Output out(g.epilogue, c, g.dst, c, g.channels - c);
    const int8_t* w = g.weights + c * (KW * G * kGroup);
    const Sums start = load_sums(out.e.corr);
    Sums acc[kLive];
#pragma GCC unroll 5
    for (int u = 0; u < kLive; ++u) acc[u] = start;
    const uint8_t* rows[4 * G];
#pragma GCC unroll 8
    for (int r = 0; r < 4 * G; ++r) rows[r] = g.rows[r] + c;
    const __mmask64 mask = out.mask;
    const auto column = [&](int64_t x, int group) __attribute__((always_inline)) {
      const auto row = [&](int r) __attribute__((always_inline)) {
        return _mm512_maskz_loadu_epi8(mask, rows[4 * group + r] + x * g.pixel);
      };
      return interleave(row(0), row(1), row(2), row(3));
    };
    // Step e begins output e; output e - kLive + 1 is complete after the first column of step e.
    const int64_t steps = g.m + kLive - 1;
    const int64_t last_column = S * (g.m - 1) + KW - 1;
    for (int64_t e = 0; e < steps; e += kLive) {
#pragma GCC unroll 5
      for (int u = 0; u < kLive; ++u) {
        if (e + u >= steps) break;
        acc[u] = start;
#pragma GCC unroll 2
        for (int s = 0; s < S; ++s) {
          if (S * (e + u) + s > last_column) break;
#pragma GCC unroll 2
          for (int group = 0; group < G; ++group) {
            const Sums x = column(S * (e + u) + s, group);
#pragma GCC unroll 5
            for (int i = 0; s + S * i < KW; ++i) {
              add(acc[(u - i + kLive) % kLive], x, w + ((s + S * i) * G + group) * 256);
            }
          }
          const int64_t done = e + u - kLive + 1;
          if (s == 0 && done >= 0) store(out, acc[(u + 1) % kLive], done * g.ldc);
        }
      }
    }
  }
}

/// Vectors of lanes (128 bits), [j] as in Sums.
template <int Lanes>
inline __attribute__((always_inline)) Sums shifted(const Sums& x, const Sums& next) {
  if constexpr (Lanes == 4) return next;
  Sums out;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) out.v[j] = _mm512_alignr_epi32(next.v[j], x.v[j], 4 * Lanes % 16);
  return out;
}
template <int Choice>
inline __attribute__((always_inline)) Sums chosen(const Sums& x, const Sums& next) {
  Sums out;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) out.v[j] = _mm512_shuffle_i64x2(x.v[j], next.v[j], Choice);
  return out;
}

/// A row of outputs with 16 or 32 channels, a lane or two: pixels lie beside each other in vectors
/// of 64 bytes, the columns of their windows are those vectors moved by whole lanes. Three columns,
/// stride S, one group of kernel rows.
template <int Lanes, int S>
void run_side_by_side(const DepthwiseRowArgs& g) noexcept {
  const int64_t in_bytes = (S * (g.m - 1) + 3) * g.pixel;
  const int64_t outputs = g.m * g.channels;
  Output out(g.epilogue, 0, g.dst, 0, kDepthBlock);
  const Sums start = load_sums(out.e.corr);
  const auto vector = [&](int64_t i) __attribute__((always_inline)) {
    const int64_t at = kDepthBlock * i;
    const __mmask64 mask = at < in_bytes ? channels_mask(in_bytes - at) : 0;
    const auto row = [&](int r) __attribute__((always_inline)) {
      return _mm512_maskz_loadu_epi8(mask, g.rows[r] + at);
    };
    return interleave(row(0), row(1), row(2), row(3));
  };
  Sums x = vector(0);
  for (int64_t b = 0; kDepthBlock * b < outputs; ++b) {
    Sums acc = start;
    if constexpr (S == 1) {
      const Sums next = vector(b + 1);
      add(acc, x, g.weights);
      add(acc, shifted<Lanes>(x, next), g.weights + 256);
      add(acc, shifted<2 * Lanes>(x, next), g.weights + 512);
      x = next;
    } else {
      // The even columns, the odd ones, the even ones a pixel further.
      constexpr int kEven =
          Lanes == 1 ? 0 | 2 << 2 | 0 << 4 | 2 << 6 : 0 | 1 << 2 | 0 << 4 | 1 << 6;
      constexpr int kOdd = Lanes == 1 ? 1 | 3 << 2 | 1 << 4 | 3 << 6 : 2 | 3 << 2 | 2 << 4 | 3 << 6;
      const Sums middle = vector(2 * b + 1);
      const Sums next = vector(2 * b + 2);
      const Sums even = chosen<kEven>(x, middle);
      add(acc, even, g.weights);
      add(acc, chosen<kOdd>(x, middle), g.weights + 256);
      add(acc, shifted<Lanes>(even, next), g.weights + 512);
      x = next;
    }
    out.mask = channels_mask(outputs - kDepthBlock * b);
    store(out, acc, kDepthBlock * b);
  }
}

}  // namespace

void depthwise(const DepthwiseArgs& g) noexcept {
  for (int64_t c = 0; c < g.channels; c += kDepthBlock) {
    const int64_t at = c % g.period;
    const Output out(g.epilogue, at, g.dst, c, g.channels - c);
    const int8_t* block = g.weights + at * g.num_taps;
    const Sums start = load_sums(out.e.corr);
    for (int64_t r = 0; r < g.m; ++r) {
      Sums acc = start;
      const uint8_t* row = g.rows[r] + c;
      for (int64_t t = 0; t < g.num_taps; t += 4) {
        const auto tap = [&](int64_t i) __attribute__((always_inline)) {
          return _mm512_maskz_loadu_epi8(out.mask, row + g.taps[t + i]);
        };
        add(acc, interleave(tap(0), tap(1), tap(2), tap(3)), block + t * kDepthBlock);
      }
      store(out, acc, r * g.ldc);
    }
  }
}

void depthwise_row(const DepthwiseRowArgs& g) noexcept {
  using Fn = void (*)(const DepthwiseRowArgs&) noexcept;
  if (g.columns == 3 && g.groups == 1 && (g.channels == 16 || g.channels == 32)) {
    // [channels 16, 32][stride 1, 2]
    constexpr Fn kBeside[2][2] = {{run_side_by_side<1, 1>, run_side_by_side<1, 2>},
                                  {run_side_by_side<2, 1>, run_side_by_side<2, 2>}};
    return kBeside[g.channels == 32][g.stride == 2](g);
  }
  // [columns 3, 5][stride 1, 2][groups 1, 2]
  constexpr Fn kRows[2][2][2] = {
      {{run_row<3, 1, 1>, run_row<3, 1, 2>}, {run_row<3, 2, 1>, run_row<3, 2, 2>}},
      {{run_row<5, 1, 1>, run_row<5, 1, 2>}, {run_row<5, 2, 1>, run_row<5, 2, 2>}}};
  kRows[g.columns == 5][g.stride == 2][g.groups == 2](g);
}

}  // namespace narrow::kernels::avx512_vnni
#endif
