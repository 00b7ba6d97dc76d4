// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution: 32 channels at once. Four taps are interleaved bytewise by two levels of
// unpacking, so that vpdpbusd sums them per channel; packing the sums again undoes the order. What
// does not fill 32 is left to AVX2.
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"
#include "narrow/kernels/x86/avx_vnni/kernels.h"

namespace narrow::kernels::avx_vnni {
namespace {

constexpr int64_t kHalf = 32;  // channels of a pass: half a block of weights
// Bytes of four taps of a block.
constexpr int64_t kFourTaps = kDepthBlock * kGroup;

struct Sums {
  __m256i v[4];  // [j]: channel 16 * lane + 4 * j + i in lane, i
};

inline __attribute__((always_inline)) __m256i load32(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

/// Four taps, interleaved: [j] as in Sums, four bytes per channel.
inline __attribute__((always_inline)) Sums interleave(__m256i x0, __m256i x1, __m256i x2,
                                                      __m256i x3) {
  const __m256i lo01 = _mm256_unpacklo_epi8(x0, x1);
  const __m256i hi01 = _mm256_unpackhi_epi8(x0, x1);
  const __m256i lo23 = _mm256_unpacklo_epi8(x2, x3);
  const __m256i hi23 = _mm256_unpackhi_epi8(x2, x3);
  return {{_mm256_unpacklo_epi16(lo01, lo23), _mm256_unpackhi_epi16(lo01, lo23),
           _mm256_unpacklo_epi16(hi01, hi23), _mm256_unpackhi_epi16(hi01, hi23)}};
}

/// acc += x * w, w: the place of these channels in weights of four taps.
inline __attribute__((always_inline)) void add(Sums& acc, const Sums& x, const int8_t* w) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    acc.v[j] = _mm256_dpbusd_avx_epi32(acc.v[j], x.v[j], load32(w + 64 * j));
  }
}

/// What the outputs of 32 channels share. Codes are made as bytes in [0, 255], int8 ones 128 higher
/// until the last step; saturating packs do what the lower bound asks.
struct Output {
  Epilogue e;  // its arrays begin at these channels, 16 entries from j to j
  std::byte* dst;
  int64_t count = kHalf;  // to store
  __m256i zero;
  __m256i lowest;
  __m256i flip;

  inline __attribute__((always_inline))
  Output(const Epilogue& epilogue, int64_t place, void* to, int64_t channel)
      : e(epilogue) {
    const int64_t at = place / kDepthBlock * kDepthBlock + place % kDepthBlock / 4;
    dst = static_cast<std::byte*>(to) + channel * (e.out == Out::codes ? 1 : 4);
    e.corr += at;
    if (e.multiplier != nullptr) e.multiplier += at;
    if (e.bias != nullptr) e.bias += at;
    const int zero_byte = e.zero_point + e.flip;
    zero = _mm256_set1_epi16(static_cast<short>(zero_byte));
    const int lo = e.out == Out::codes ? static_cast<int>(e.lo) + zero_byte : 0;
    lowest = _mm256_set1_epi8(static_cast<char>(lo));
    flip = _mm256_set1_epi8(static_cast<char>(e.flip));
  }

  inline __attribute__((always_inline)) Sums start() const {
    Sums s;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) s.v[j] = load32(e.corr + 16 * j);
    return s;
  }
};

/// Floats and sums, channel by channel. From memory, so that the callers' sums stay in registers.
void store_wide(const Output& o, const __m256i* sums, int64_t offset) {
  alignas(32) int32_t all[kHalf];
  for (int j = 0; j < 4; ++j) {
    __m256i v = sums[j];
    if (o.e.out == Out::f32) {
      __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(v), _mm256_loadu_ps(o.e.multiplier + 16 * j));
      if (o.e.bias != nullptr) t = _mm256_add_ps(t, _mm256_loadu_ps(o.e.bias + 16 * j));
      t = _mm256_max_ps(_mm256_min_ps(t, _mm256_set1_ps(o.e.hi)), _mm256_set1_ps(o.e.lo));
      v = _mm256_castps_si256(t);
    }
    _mm_store_si128(reinterpret_cast<__m128i*>(all + 4 * j), _mm256_castsi256_si128(v));
    _mm_store_si128(reinterpret_cast<__m128i*>(all + 16 + 4 * j), _mm256_extracti128_si256(v, 1));
  }
  __builtin_memcpy(o.dst + 4 * offset, all, static_cast<size_t>(o.count) * 4);
}

/// 32 codes in order.
inline __attribute__((always_inline)) __m256i codes_of(const Output& o, const Sums& acc) {
  const __m256 hi = _mm256_set1_ps(o.e.hi);
  __m256i t[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m256 m = _mm256_loadu_ps(o.e.multiplier + 16 * j);
    const __m256 real = _mm256_mul_ps(_mm256_cvtepi32_ps(acc.v[j]), m);
    t[j] = _mm256_cvtps_epi32(_mm256_min_ps(real, hi));
  }
  const __m256i a = _mm256_adds_epi16(_mm256_packs_epi32(t[0], t[1]), o.zero);
  const __m256i b = _mm256_adds_epi16(_mm256_packs_epi32(t[2], t[3]), o.zero);
  return _mm256_xor_si256(_mm256_max_epu8(_mm256_packus_epi16(a, b), o.lowest), o.flip);
}

inline __attribute__((always_inline)) void store(const Output& o, const Sums& acc, int64_t offset) {
  if (o.e.out != Out::codes) {
    const __m256i sums[4] = {acc.v[0], acc.v[1], acc.v[2], acc.v[3]};
    return store_wide(o, sums, offset);
  }
  const __m256i codes = codes_of(o, acc);
  if (o.count == kHalf) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(o.dst + offset), codes);
  } else {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(o.dst + offset), _mm256_castsi256_si128(codes));
  }
}

/// A row of outputs, column by column of the input: what is interleaved once serves every output
/// whose window covers the column. KW columns (odd), stride S, G groups of kernel rows.
template <int KW, int S, int G>
void run_row(const DepthwiseRowArgs& g, int64_t c) noexcept {
  constexpr int kLive = (KW + S - 1) / S;  // outputs under way
  const Output out(g.epilogue, c, g.dst, c);
  const int8_t* w = g.weights + c / kDepthBlock * (KW * G * kFourTaps) + c % kDepthBlock;
  Sums acc[kLive];
#pragma GCC unroll 5
  for (int u = 0; u < kLive; ++u) acc[u] = out.start();
  const uint8_t* rows[4 * G];
#pragma GCC unroll 8
  for (int r = 0; r < 4 * G; ++r) rows[r] = g.rows[r] + c;
  const auto column = [&](int64_t x, int group) __attribute__((always_inline)) {
    const auto row = [&](int r) __attribute__((always_inline)) {
      return load32(rows[4 * group + r] + x * g.pixel);
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
      acc[u] = out.start();
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) {
        if (S * (e + u) + s > last_column) break;
#pragma GCC unroll 2
        for (int group = 0; group < G; ++group) {
          const Sums x = column(S * (e + u) + s, group);
#pragma GCC unroll 5
          for (int i = 0; s + S * i < KW; ++i) {
            add(acc[(u - i + kLive) % kLive], x, w + ((s + S * i) * G + group) * kFourTaps);
          }
        }
        const int64_t done = e + u - kLive + 1;
        if (s == 0 && done >= 0) store(out, acc[(u + 1) % kLive], done * g.ldc);
      }
    }
  }
}

template <int Choice>
inline __attribute__((always_inline)) Sums chosen(const Sums& x, const Sums& next) {
  Sums out;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) out.v[j] = _mm256_permute2x128_si256(x.v[j], next.v[j], Choice);
  return out;
}

/// A row of outputs with 16 channels: two pixels lie beside each other, the columns of their
/// windows are those vectors moved by lanes. Three columns, stride S, one group of kernel rows.
template <int S>
void run_side_by_side(const DepthwiseRowArgs& g) noexcept {
  const int64_t in_bytes = (S * (g.m - 1) + 3) * g.pixel;
  const int64_t outputs = g.m * g.channels;
  Output out(g.epilogue, 0, g.dst, 0);
  const auto vector = [&](int64_t i) __attribute__((always_inline)) {
    const int64_t at = kHalf * i;
    const auto row = [&](int r) __attribute__((always_inline)) {
      const uint8_t* p = g.rows[r] + at;
      if (at + kHalf <= in_bytes) return load32(p);
      if (at >= in_bytes) return _mm256_setzero_si256();
      return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    };
    return interleave(row(0), row(1), row(2), row(3));
  };
  Sums x = vector(0);
  for (int64_t b = 0; kHalf * b < outputs; ++b) {
    Sums acc = out.start();
    if constexpr (S == 1) {
      const Sums next = vector(b + 1);
      add(acc, x, g.weights);
      add(acc, chosen<0x21>(x, next), g.weights + kFourTaps);
      add(acc, next, g.weights + 2 * kFourTaps);
      x = next;
    } else {
      // The even columns, the odd ones, the even ones a pixel further.
      const Sums middle = vector(2 * b + 1);
      const Sums next = vector(2 * b + 2);
      add(acc, chosen<0x20>(x, middle), g.weights);
      add(acc, chosen<0x31>(x, middle), g.weights + kFourTaps);
      add(acc, chosen<0x20>(middle, next), g.weights + 2 * kFourTaps);
      x = next;
    }
    if (outputs - kHalf * b < kHalf) out.count = outputs - kHalf * b;
    store(out, acc, kHalf * b);
  }
}

/// Pixel by pixel, 32 channels from c on.
void run_pixels(const DepthwiseArgs& g, int64_t c) noexcept {
  const int64_t place = c % g.period;
  const Output out(g.epilogue, place, g.dst, c);
  const int8_t* w =
      g.weights + place / kDepthBlock * (kDepthBlock * g.num_taps) + place % kDepthBlock;
  const Sums start = out.start();
  for (int64_t r = 0; r < g.m; ++r) {
    Sums acc = start;
    const uint8_t* row = g.rows[r] + c;
    for (int64_t t = 0; t < g.num_taps; t += kGroup) {
      const auto tap = [&](int64_t i) __attribute__((always_inline)) {
        return load32(row + g.taps[t + i]);
      };
      add(acc, interleave(tap(0), tap(1), tap(2), tap(3)), w + t * kDepthBlock);
    }
    store(out, acc, r * g.ldc);
  }
}

}  // namespace

void depthwise(const DepthwiseArgs& args) noexcept {
  int64_t c = 0;
  for (; c + kHalf <= args.channels; c += kHalf) run_pixels(args, c);
  avx2::depthwise_from(args, c);
}

void depthwise_row(const DepthwiseRowArgs& args) noexcept {
  if (args.columns == 3 && args.groups == 1 && args.channels == 16) {
    return args.stride == 1 ? run_side_by_side<1>(args) : run_side_by_side<2>(args);
  }
  using Fn = void (*)(const DepthwiseRowArgs&, int64_t) noexcept;
  // [columns 3, 5][stride 1, 2][groups 1, 2]
  constexpr Fn kRows[2][2][2] = {
      {{run_row<3, 1, 1>, run_row<3, 1, 2>}, {run_row<3, 2, 1>, run_row<3, 2, 2>}},
      {{run_row<5, 1, 1>, run_row<5, 1, 2>}, {run_row<5, 2, 1>, run_row<5, 2, 2>}}};
  const Fn run = kRows[args.columns == 5][args.stride == 2][args.groups == 2];
  int64_t c = 0;
  for (; c + kHalf <= args.channels; c += kHalf) run(args, c);
  avx2::depthwise_row_from(args, c);
}

}  // namespace narrow::kernels::avx_vnni
#endif
