// SPDX-License-Identifier: Apache-2.0
// One stretch of keys for a tile of query rows: scores, running maximum and sum, and the sum of
// values weighted so far. After Milakov and Gimelshein, "Online normalizer calculation for softmax"
// (2018), and Dao et al., "FlashAttention" (2022). Included inside an anonymous namespace behind a
// float_vec.h.
#pragma once

#include "narrow/kernels/dot_tile_body.h"
#include "narrow/kernels/exponential_body.h"

/// cap * tanh(x / cap).
inline Vec capped(Vec x, float cap) {
  const Vec e = exponential(x * set1(2 / cap));
  return set1(cap) - set1(2 * cap) / (e + set1(1));
}

/// scores[i][j] = q[i] . k[j] for R rows and four keys.
template <class T, int R>
inline void score_block(const AttendArgs& g, int64_t row, int64_t key,
                        float (*scores)[kAttendKeys]) {
  const T* k[4];
  for (int64_t j = 0; j < 4; ++j) {
    const int64_t t = key + j < g.keys ? key + j : g.keys - 1;
    k[j] = static_cast<const T*>(g.k) + t * g.k_row;
  }
  Vec acc[R][4];
  dot_tile<R>(g.q + row, k, g.width, acc);
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
    store_sum4(scores[row + i] + key, acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
  }
}

template <class T, int R>
inline void score_rows(const AttendArgs& g, int64_t row, int64_t begin, int64_t end,
                       float (*scores)[kAttendKeys]) {
  for (int64_t key = begin / 4 * 4; key < end; key += 4) score_block<T, R>(g, row, key, scores);
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
template <class T, int R, int N>
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
    const T* v = static_cast<const T*>(g.v) + t * g.v_row + at;
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

template <class T, int R>
inline void weigh_rows(const AttendArgs& g, int64_t row, int64_t begin, int64_t end,
                       const float (*weights)[kAttendKeys], const float* kept) {
  int64_t at = 0;
  for (; at + kOutputVectors * kWidth <= g.value_width; at += kOutputVectors * kWidth) {
    weigh_block<T, R, kOutputVectors>(g, row, begin, end, at, 0, weights, kept);
  }
  for (; at + kWidth <= g.value_width; at += kWidth) {
    weigh_block<T, R, 1>(g, row, begin, end, at, 0, weights, kept);
  }
  if (at < g.value_width) {
    weigh_block<T, R, 1>(g, row, begin, end, at, g.value_width - at, weights, kept);
  }
}

template <class T, int R>
inline void attend_rows(const AttendArgs& g, int64_t row, float (*scores)[kAttendKeys]) {
  int64_t begin = kAttendKeys;
  int64_t end = 0;
  for (int i = 0; i < R; ++i) {
    begin = g.begin[row + i] < begin ? g.begin[row + i] : begin;
    end = g.end[row + i] > end ? g.end[row + i] : end;
  }
  if (begin >= end) return;
  score_rows<T, R>(g, row, begin, end, scores);
  float kept[kAttendRows];
  for (int i = 0; i < R; ++i) kept[row + i] = soften(g, row + i, scores[row + i]);
  weigh_rows<T, R>(g, row, begin, end, scores, kept);
}

template <class T>
inline void attend_tile(const AttendArgs& g) {
  alignas(64) float scores[kAttendRows][kAttendKeys];
  int64_t row = 0;
  for (; row + 4 <= g.rows; row += 4) attend_rows<T, 4>(g, row, scores);
  if (row + 2 <= g.rows) {
    attend_rows<T, 2>(g, row, scores);
    row += 2;
  }
  if (row < g.rows) attend_rows<T, 1>(g, row, scores);
}

inline void attend_body(const AttendArgs& g) {
  if (g.half != 0) {
    attend_tile<Float16>(g);
  } else {
    attend_tile<float>(g);
  }
}
