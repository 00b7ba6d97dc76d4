// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution: 16 channels at once, widened to 16 bits, pairs of taps side by side for
// vpmaddwd (exact for every input).
#if defined(__x86_64__)
#include <immintrin.h>

#include "narrow/kernels/x86/avx2/kernels.h"

namespace narrow::kernels::avx2 {
namespace {

constexpr int64_t kLane = 16;  // channels of a pass
// Bytes of four taps of a block.
constexpr int64_t kFourTaps = kDepthBlock * kGroup;
// Taps whose weights are widened once for all pixels: windows of 8 x 8.
constexpr int64_t kKeptGroups = 16;

/// Channels 0..3 and 8..11, then 4..7 and 12..15: as unpacking leaves them and packing takes them.
struct Sums {
  __m256i v[2];
};
/// 16-bit pairs: taps 0 and 1 of both halves of the channels (as in Sums), then taps 2 and 3.
struct FourTaps {
  __m256i v[4];
};

inline __attribute__((always_inline)) __m128i load16(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}

template <class T>
inline __attribute__((always_inline)) T read(const uint8_t* p) {
  T v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/// The first n < 16 bytes, reading no further.
__m128i load_part(const uint8_t* p, int64_t n) {
  uint64_t low = 0;
  uint64_t high = 0;
  if (n >= 8) {
    low = read<uint64_t>(p);
    if (n > 8) high = read<uint64_t>(p + n - 8) >> (8 * (16 - n));
  } else if (n >= 4) {
    low = read<uint32_t>(p) | static_cast<uint64_t>(read<uint32_t>(p + n - 4)) << (8 * (n - 4));
  } else {
    for (int64_t i = 0; i < n; ++i) low |= static_cast<uint64_t>(p[i]) << (8 * i);
  }
  return _mm_set_epi64x(static_cast<long long>(high), static_cast<long long>(low));
}

/// A load of 16 channels, or of the last ones.
template <bool Whole>
inline __attribute__((always_inline)) __m256i widened(const uint8_t* p, int64_t count) {
  return _mm256_cvtepu8_epi16(Whole ? load16(p) : load_part(p, count));
}

inline __attribute__((always_inline)) FourTaps pairs(__m256i x0, __m256i x1, __m256i x2,
                                                     __m256i x3) {
  return {{_mm256_unpacklo_epi16(x0, x1), _mm256_unpackhi_epi16(x0, x1),
           _mm256_unpacklo_epi16(x2, x3), _mm256_unpackhi_epi16(x2, x3)}};
}

/// Weights of four taps, from the place of these channels in a block: [j 4][4 channels][4 taps],
/// 64 bytes from j to j.
inline __attribute__((always_inline)) FourTaps weights_at(const int8_t* w) {
  const __m256i apart = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
  __m256i j[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    j[i] = _mm256_permutevar8x32_epi32(_mm256_cvtepi8_epi16(load16(w + 64 * i)), apart);
  }
  return {{_mm256_permute2x128_si256(j[0], j[2], 0x20), _mm256_permute2x128_si256(j[1], j[3], 0x20),
           _mm256_permute2x128_si256(j[0], j[2], 0x31),
           _mm256_permute2x128_si256(j[1], j[3], 0x31)}};
}

inline __attribute__((always_inline)) void add(Sums& acc, const FourTaps& x, const FourTaps& w) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    acc.v[i % 2] = _mm256_add_epi32(acc.v[i % 2], _mm256_madd_epi16(x.v[i], w.v[i]));
  }
}

/// What the outputs of 16 channels share. Codes are made as bytes in [0, 255], int8 ones 128 higher
/// until the last step; saturating packs do what the lower bound asks.
struct Output {
  const Epilogue& e;
  int64_t at;  // of these channels in the epilogue's arrays
  int64_t count;
  std::byte* dst;
  __m256i corr[2];
  __m256 multiplier[2];
  __m256i zero;
  __m128i lowest;
  __m128i flip;

  inline __attribute__((always_inline))
  Output(const Epilogue& epilogue, int64_t place, void* to, int64_t channel, int64_t channels)
      : e(epilogue),
        at(place / kDepthBlock * kDepthBlock + place % kDepthBlock / kLane * 4),
        count(channels - channel < kLane ? channels - channel : kLane) {
    dst = static_cast<std::byte*>(to) + channel * (e.out == Out::codes ? 1 : 4);
    for (int i = 0; i < 2; ++i) {
      corr[i] = halves(e.corr, i);
      multiplier[i] = e.multiplier == nullptr ? _mm256_setzero_ps()
                                              : _mm256_castsi256_ps(halves(e.multiplier, i));
    }
    const int zero_byte = e.zero_point + e.flip;
    zero = _mm256_set1_epi16(static_cast<short>(zero_byte));
    const int lo = e.out == Out::codes ? static_cast<int>(e.lo) + zero_byte : 0;
    lowest = _mm_set1_epi8(static_cast<char>(lo));
    flip = _mm_set1_epi8(static_cast<char>(e.flip));
  }

  // Vector by vector: GCC copies a whole struct through memory in pieces that stall the load.
  inline __attribute__((always_inline)) Sums start() const { return {{corr[0], corr[1]}}; }

  /// Entries of the channels in Sums::v[i].
  inline __attribute__((always_inline)) __m256i halves(const void* array, int i) const {
    const auto* p = static_cast<const int32_t*>(array) + at + 16 * i;
    return _mm256_set_m128i(load16(p + 32), load16(p));
  }
};

/// Floats and sums. From memory, so that the callers' sums stay in registers.
void store_wide(const Output& o, const __m256i* sums, int64_t offset) {
  alignas(32) int32_t all[kLane];
  for (int i = 0; i < 2; ++i) {
    __m256i v = sums[i];
    if (o.e.out == Out::f32) {
      __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(v), o.multiplier[i]);
      if (o.e.bias != nullptr) {
        t = _mm256_add_ps(t, _mm256_castsi256_ps(o.halves(o.e.bias, i)));
      }
      t = _mm256_max_ps(_mm256_min_ps(t, _mm256_set1_ps(o.e.hi)), _mm256_set1_ps(o.e.lo));
      v = _mm256_castps_si256(t);
    }
    _mm_store_si128(reinterpret_cast<__m128i*>(all + 4 * i), _mm256_castsi256_si128(v));
    _mm_store_si128(reinterpret_cast<__m128i*>(all + 8 + 4 * i), _mm256_extracti128_si256(v, 1));
  }
  __builtin_memcpy(o.dst + 4 * offset, all, static_cast<size_t>(o.count) * 4);
}

template <bool Whole>
inline __attribute__((always_inline)) void store(const Output& o, const Sums& acc, int64_t offset) {
  if (o.e.out != Out::codes) {
    const __m256i sums[2] = {acc.v[0], acc.v[1]};
    return store_wide(o, sums, offset);
  }
  const __m256 hi = _mm256_set1_ps(o.e.hi);
  __m256i t[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m256 real = _mm256_mul_ps(_mm256_cvtepi32_ps(acc.v[i]), o.multiplier[i]);
    t[i] = _mm256_cvtps_epi32(_mm256_min_ps(real, hi));
  }
  const __m256i words = _mm256_adds_epi16(_mm256_packs_epi32(t[0], t[1]), o.zero);
  const __m128i bytes =
      _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  const __m128i codes = _mm_xor_si128(_mm_max_epu8(bytes, o.lowest), o.flip);
  if constexpr (Whole) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(o.dst + offset), codes);
  } else {
    __builtin_memcpy(o.dst + offset, &codes, static_cast<size_t>(o.count));
  }
}

/// Pixel by pixel, 16 channels from c on.
template <bool Whole>
void run_pixels(const DepthwiseArgs& g, int64_t c) noexcept {
  const int64_t place = c % g.period;
  const Output out(g.epilogue, place, g.dst, c, g.channels);
  const int8_t* lane =
      g.weights + place / kDepthBlock * (kDepthBlock * g.num_taps) + place % kDepthBlock;
  const int64_t groups = g.num_taps / kGroup;
  FourTaps kept[kKeptGroups];
  for (int64_t t = 0; t < groups && t < kKeptGroups; ++t)
    kept[t] = weights_at(lane + t * kFourTaps);
  for (int64_t r = 0; r < g.m; ++r) {
    const uint8_t* row = g.rows[r] + c;
    Sums acc = out.start();
    for (int64_t t = 0; t < groups; ++t) {
      const int64_t* taps = g.taps + kGroup * t;
      const FourTaps x =
          pairs(widened<Whole>(row + taps[0], out.count), widened<Whole>(row + taps[1], out.count),
                widened<Whole>(row + taps[2], out.count), widened<Whole>(row + taps[3], out.count));
      add(acc, x, t < kKeptGroups ? kept[t] : weights_at(lane + t * kFourTaps));
    }
    store<Whole>(out, acc, r * g.ldc);
  }
}

/// A row of outputs, column by column of the input: what is widened once serves every output whose
/// window covers the column. KW columns (odd), stride S, G groups of kernel rows.
template <int KW, int S, int G, bool Whole>
void run_row(const DepthwiseRowArgs& g, int64_t c) noexcept {
  constexpr int kLive = (KW + S - 1) / S;  // outputs under way
  const Output out(g.epilogue, c, g.dst, c, g.channels);
  const int8_t* lane = g.weights + c / kDepthBlock * (KW * G * kFourTaps) + c % kDepthBlock;
  FourTaps w[KW * G];
  for (int k = 0; k < KW * G; ++k) w[k] = weights_at(lane + k * kFourTaps);
  Sums acc[kLive];
#pragma GCC unroll 5
  for (int u = 0; u < kLive; ++u) acc[u] = out.start();
  const uint8_t* rows[4 * G];
#pragma GCC unroll 8
  for (int r = 0; r < 4 * G; ++r) rows[r] = g.rows[r] + c;
  const auto column = [&](int64_t x, int group) __attribute__((always_inline)) {
    const auto row = [&](int r) __attribute__((always_inline)) {
      return widened<Whole>(rows[4 * group + r] + x * g.pixel, out.count);
    };
    return pairs(row(0), row(1), row(2), row(3));
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
          const FourTaps x = column(S * (e + u) + s, group);
#pragma GCC unroll 5
          for (int i = 0; s + S * i < KW; ++i) {
            add(acc[(u - i + kLive) % kLive], x, w[(s + S * i) * G + group]);
          }
        }
        const int64_t done = e + u - kLive + 1;
        if (s == 0 && done >= 0) store<Whole>(out, acc[(u + 1) % kLive], done * g.ldc);
      }
    }
  }
}

using RowFn = void (*)(const DepthwiseRowArgs&, int64_t) noexcept;

template <bool Whole>
RowFn row_kernel(const DepthwiseRowArgs& g) {
  // [columns 3, 5][stride 1, 2][groups 1, 2]
  constexpr RowFn kRows[2][2][2] = {{{run_row<3, 1, 1, Whole>, run_row<3, 1, 2, Whole>},
                                     {run_row<3, 2, 1, Whole>, run_row<3, 2, 2, Whole>}},
                                    {{run_row<5, 1, 1, Whole>, run_row<5, 1, 2, Whole>},
                                     {run_row<5, 2, 1, Whole>, run_row<5, 2, 2, Whole>}}};
  return kRows[g.columns == 5][g.stride == 2][g.groups == 2];
}

}  // namespace

void depthwise_from(const DepthwiseArgs& args, int64_t channel) noexcept {
  int64_t c = channel;
  for (; c + kLane <= args.channels; c += kLane) run_pixels<true>(args, c);
  if (c < args.channels) run_pixels<false>(args, c);
}

void depthwise_row_from(const DepthwiseRowArgs& args, int64_t channel) noexcept {
  int64_t c = channel;
  for (; c + kLane <= args.channels; c += kLane) row_kernel<true>(args)(args, c);
  if (c < args.channels) row_kernel<false>(args)(args, c);
}

void depthwise(const DepthwiseArgs& args) noexcept {
  depthwise_from(args, 0);
}

void depthwise_row(const DepthwiseRowArgs& args) noexcept {
  depthwise_row_from(args, 0);
}

}  // namespace narrow::kernels::avx2
#endif
