// SPDX-License-Identifier: Apache-2.0
// Dot products of R rows with four others, a vector of their length at a time, all in registers;
// acc[i][j] holds the lanes of row i times other j. `w` are pointers, or what reads like
// them. The order of a sum depends on the length alone.
// Included inside an anonymous namespace behind a float_vec.h.
#pragma once

template <int R, class X, class W>
__attribute__((always_inline)) inline void dot_tile(const X* const* x, const W* w, int64_t length,
                                                    Vec (*acc)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[i][j] = zeros();
  }
  const auto multiply = [&](const auto& read, int64_t p) __attribute__((always_inline)) {
    Vec v[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) v[j] = read(w[j] + p);
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      const Vec u = read(x[i] + p);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) acc[i][j] = multiply_add(u, v[j], acc[i][j]);
    }
  };
  int64_t p = 0;
  for (; p + kWidth <= length; p += kWidth) {
    multiply(
        [](const auto& from) __attribute__((always_inline)) { return load(from); }, p);
  }
  if (p < length) {
    const int64_t rest = length - p;
    multiply(
        [rest](const auto& from) __attribute__((always_inline)) { return load_part(from, rest); },
        p);
  }
}
