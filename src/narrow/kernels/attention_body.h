// SPDX-License-Identifier: Apache-2.0
// One stretch of keys for a tile of query rows: scores, running maximum and sum, and the sum of
// values weighted so far. After Milakov and Gimelshein, "Online normalizer calculation for softmax"
// (2018), and Dao et al., "FlashAttention" (2022). Included inside an anonymous namespace behind a
// float_vec.h.
#pragma once

#include "narrow/kernels/dot_tile_body.h"
#include "narrow/kernels/exponential_body.h"

/// A row of int8 codes with a scale for each 2^shift of them, seen from number `at` on.
struct ScaledCodes {
  const int8_t* codes;
  const float* scales;
  int64_t at;
  int32_t shift;
};
inline ScaledCodes operator+(ScaledCodes row, int64_t n) {
  row.at += n;
  return row;
}
// A vector lies inside of a block: blocks and what is added are multiples of it.
inline Vec load(const ScaledCodes& row) {
  return load(row.codes + row.at) * set1(row.scales[row.at >> row.shift]);
}
inline Vec load_part(const ScaledCodes& row, int64_t n) {
  return load_part(row.codes + row.at, n) * set1(row.scales[row.at >> row.shift]);
}

/// Where the numbers of key or value t of a stretch begin.
template <class T>
struct PlainRows {
  static const T* key(const AttendArgs& g, int64_t t) {
    return static_cast<const T*>(g.k) + t * g.k_row;
  }
  static const T* value(const AttendArgs& g, int64_t t) {
    return static_cast<const T*>(g.v) + t * g.v_row;
  }
};
struct CodeRows {
  static ScaledCodes key(const AttendArgs& g, int64_t t) {
    return {static_cast<const int8_t*>(g.k) + t * g.k_row, g.k_scales + t * g.k_scale_row, 0,
            g.scale_shift};
  }
  static ScaledCodes value(const AttendArgs& g, int64_t t) {
    return {static_cast<const int8_t*>(g.v) + t * g.v_row, g.v_scales + t * g.v_scale_row, 0,
            g.scale_shift};
  }
};

/// cap * tanh(x / cap).
inline Vec capped(Vec x, float cap) {
  const Vec e = exponential(x * set1(2 / cap));
  return set1(cap) - set1(2 * cap) / (e + set1(1));
}

/// scores[i][j] = q[i] . k[j] for R rows and four keys.
template <class Rows, int R>
inline void score_block(const AttendArgs& g, int64_t row, int64_t key,
                        float (*scores)[kAttendKeys]) {
  decltype(Rows::key(g, 0)) k[4];
  for (int64_t j = 0; j < 4; ++j) k[j] = Rows::key(g, key + j < g.keys ? key + j : g.keys - 1);
  Vec acc[R][4];
  dot_tile<R>(g.q + row, k, g.width, acc);
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
    store_sum4(scores[row + i] + key, acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
  }
}

template <class Rows, int R>
inline void score_rows(const AttendArgs& g, int64_t row, int64_t begin, int64_t end,
                       float (*scores)[kAttendKeys]) {
  for (int64_t key = begin / 4 * 4; key < end; key += 4) score_block<Rows, R>(g, row, key, scores);
}

/// Scores of one row become weights e^(score - maximum); returns what earlier sums are worth now.
inline float soften(const AttendArgs& g, int64_t row, float* scores) {
  const float masked = -__builtin_inff();
  const int64_t length = (g.keys + kWidth - 1) / kWidth * kWidth;
  for (int64_t t = 0; t < g.begin[row]; ++t) scores[t] = 0;
  for (int64_t t = g.end[row]; t < length; ++t) scores[t] = 0;
  const float* bias = g.bias == nullptr ? nullptr : g.bias + row * kAttendKeys;
  Vec top = set1(masked);
  for (int64_t t = 0; t < length; t += kWidth) {
    Vec x = load(scores + t) * set1(g.scale);
    if (g.softcap > 0) x = capped(x, g.softcap);
    if (bias != nullptr) x = x + load(bias + t);
    store(scores + t, x);
  }
  for (int64_t t = 0; t < g.begin[row]; ++t) scores[t] = masked;
  for (int64_t t = g.end[row]; t < length; ++t) scores[t] = masked;
  for (int64_t t = 0; t < length; t += kWidth) top = larger(load(scores + t), top);
  float lanes[kWidth];
  store(lanes, top);
  float largest = g.largest[row];
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  if (largest == masked) {
    bool is_nan = false;  // which maxima do not see
    for (int64_t t = 0; t < length; ++t) is_nan = is_nan || scores[t] != scores[t];
    if (!is_nan) {
      for (int64_t t = 0; t < length; ++t) scores[t] = 0;
      return 1;
    }
    largest = 0;
  }
  Vec sum = zeros();
  for (int64_t t = 0; t < length; t += kWidth) {
    const Vec e = exponential(load(scores + t) - set1(largest));
    store(scores + t, e);
    sum = sum + e;
  }
  store(lanes, exponential(set1(g.largest[row] - largest)));
  const float kept = lanes[0];
  store(lanes, sum);
  float total = 0;
  for (const float lane : lanes) total += lane;
  g.sum[row] = g.sum[row] * kept + total;
  g.largest[row] = largest;
  return kept;
}

/// y[i] = y[i] * kept[i] + sum over keys of weight * value, N vectors of R rows from `at` on; the
/// last vector has `rest` numbers where that is not 0.
template <class Rows, int R, int N>
inline void weigh_block(const AttendArgs& g, int64_t row, int64_t begin, int64_t end, int64_t at,
                        int64_t rest, const float (*weights)[kAttendKeys], const float* kept) {
  Vec acc[R][N];
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const float* from = g.y[row + i] + at + n * kWidth;
      acc[i][n] = (rest > 0 ? load_part(from, rest) : load(from)) * set1(kept[row + i]);
    }
  }
  for (int64_t t = begin; t < end; ++t) {
    const auto v = Rows::value(g, t) + at;
    Vec value[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      value[n] = rest > 0 ? load_part(v + n * kWidth, rest) : load(v + n * kWidth);
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      const Vec w = set1(weights[row + i][t]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) acc[i][n] = multiply_add(w, value[n], acc[i][n]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      float* to = g.y[row + i] + at + n * kWidth;
      if (rest > 0) {
        store_part(to, acc[i][n], rest);
      } else {
        store(to, acc[i][n]);
      }
    }
  }
}

template <class Rows, int R>
inline void weigh_rows(const AttendArgs& g, int64_t row, int64_t begin, int64_t end,
                       const float (*weights)[kAttendKeys], const float* kept) {
  int64_t at = 0;
  for (; at + kOutputVectors * kWidth <= g.value_width; at += kOutputVectors * kWidth) {
    weigh_block<Rows, R, kOutputVectors>(g, row, begin, end, at, 0, weights, kept);
  }
  for (; at + kWidth <= g.value_width; at += kWidth) {
    weigh_block<Rows, R, 1>(g, row, begin, end, at, 0, weights, kept);
  }
  if (at < g.value_width) {
    weigh_block<Rows, R, 1>(g, row, begin, end, at, g.value_width - at, weights, kept);
  }
}

template <class Rows, int R>
inline void attend_rows(const AttendArgs& g, int64_t row, float (*scores)[kAttendKeys]) {
  int64_t begin = kAttendKeys;
  int64_t end = 0;
  for (int i = 0; i < R; ++i) {
    begin = g.begin[row + i] < begin ? g.begin[row + i] : begin;
    end = g.end[row + i] > end ? g.end[row + i] : end;
  }
  if (begin >= end) return;
  score_rows<Rows, R>(g, row, begin, end, scores);
  float kept[kAttendRows];
  for (int i = 0; i < R; ++i) kept[row + i] = soften(g, row + i, scores[row + i]);
  weigh_rows<Rows, R>(g, row, begin, end, scores, kept);
}

template <class Rows>
inline void attend_tile(const AttendArgs& g) {
  alignas(64) float scores[kAttendRows][kAttendKeys];
  int64_t row = 0;
  for (; row + 4 <= g.rows; row += 4) attend_rows<Rows, 4>(g, row, scores);
  if (row + 2 <= g.rows) {
    attend_rows<Rows, 2>(g, row, scores);
    row += 2;
  }
  if (row < g.rows) attend_rows<Rows, 1>(g, row, scores);
}

inline void attend_body(const AttendArgs& g) {
  switch (g.store) {
    case KeyStore::int8:
      return attend_tile<CodeRows>(g);
    case KeyStore::f16:
      return attend_tile<PlainRows<Float16>>(g);
    default:
      return attend_tile<PlainRows<float>>(g);
  }
}
