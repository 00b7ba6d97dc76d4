// SPDX-License-Identifier: Apache-2.0
// Floats times weights in blocks (BlockFloatArgs): a stretch of a panel is unpacked to codes of 8
// bits, becomes floats in registers and meets some rows of x. kFloatSums sums side by side, by k
// modulo their number, are put together at the end of each stretch, so the order of a sum depends
// on k alone. Included behind block_gemm_body.h.
#pragma once

/// R rows times one unpacked panel.
template <int64_t Group, int R>
void float_tile(const BlockFloatArgs& a, const Stretch& w, int64_t r, int64_t first,
                const TileOutput& out) {
  Floats sums[R][kFloatSums];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kFloatSums; ++j) sums[i][j] = zero_floats();
  }
  const float* x[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) x[i] = a.x + (r + i) * a.ldx + first;
  const int64_t groups = w.runs * (kRun / Group);
  for (int64_t group = 0; group < groups; ++group) {
    const Floats scale = load_floats(w.scale[0] + group * kPanel, kPanel);
    const Floats offset = load_floats(w.offset[0] + group * kPanel, kPanel);
    for (int64_t step = group * (Group / 4); step < (group + 1) * (Group / 4); ++step) {
      const Codes codes = load_codes(w.codes[0] + kPlane * step);
      unrolled<4>([&](auto lane) NARROW_LAMBDA {
        constexpr int kLane = decltype(lane)::value;
        const Floats weight = multiply_add(byte_of<kLane>(codes), scale, offset);
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
          Floats& sum = sums[i][kLane % kFloatSums];
          sum = multiply_add(set_all(x[i][4 * step + kLane]), weight, sum);
        }
      });
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    float* to = out.dst + i * out.ldc;
    Floats all = plus(sums[i][0], sums[i][1]);
    if constexpr (kFloatSums == 4) all = plus(all, plus(sums[i][2], sums[i][3]));
    store_floats(to, out.first ? all : plus(load_floats(to, out.columns), all), out.columns);
  }
}

template <class F>
void float_gemm(const BlockFloatArgs& a) {
  Stretch w;
  const uint8_t* panel = a.weights;
  for (int64_t column = 0; column < a.n; column += kPanel, panel += a.panel_bytes) {
    const int64_t left = a.n - column;
    for (int64_t first = 0; first < a.k; first += kStretch) {
      const int64_t values = a.k - first < kStretch ? a.k - first : kStretch;
      w.runs = values / kRun;
      unpack<F, Wanted::floats>(panel, first, 0, w);
      TileOutput out{nullptr, a.ldc, left < kPanel ? left : kPanel, first == 0};
      int64_t r = 0;
      for (; r + kFloatRows <= a.m; r += kFloatRows) {
        out.dst = a.dst + r * a.ldc + column;
        float_tile<F::kGroup, kFloatRows>(a, w, r, first, out);
      }
      for (; r < a.m; ++r) {
        out.dst = a.dst + r * a.ldc + column;
        float_tile<F::kGroup, 1>(a, w, r, first, out);
      }
    }
  }
}

inline void block_float_body(const BlockFloatArgs& a) {
  for_form(a.kernel, [&]<class F>(std::type_identity<F>) { float_gemm<F>(a); });
}
