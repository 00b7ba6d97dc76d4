// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/gemm.h"

#include <algorithm>
#include <cstring>

#include "narrow/core/cpu.h"
#include "narrow/core/parallel.h"

namespace narrow::ops {
namespace {

// Depth of one pass over a panel pair: tile_n * kDepth floats of B stay in a 32 KiB L1 cache.
constexpr int64_t kDepth = 256;

template <int Width>
struct VectorOf {
  typedef float type __attribute__((vector_size(Width * sizeof(float))));
};

/// Loads and stores at any float's address.
template <class Vector>
[[gnu::always_inline]] inline void load(Vector& v, const float* from) {
  std::memcpy(&v, from, sizeof(Vector));
}
template <class Vector>
[[gnu::always_inline]] inline void store(float* to, const Vector& v) {
  std::memcpy(to, &v, sizeof(Vector));
}

/// The tile for vectors of Width floats: Rows x (2 * Width) accumulators in registers. Inlined into
/// functions that differ in the instruction set they may use.
template <int Width, int Rows>
[[gnu::always_inline]] inline void tile_body(const float* a, const float* b, int64_t k, float* c,
                                             int64_t ldc, int64_t rows, int64_t cols,
                                             int accumulate) {
  using Vector = typename VectorOf<Width>::type;
  Vector low[Rows];
  Vector high[Rows];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) low[i] = high[i] = Vector{};
  for (int64_t p = 0; p < k; ++p) {
    Vector b0;
    Vector b1;
    load(b0, b);
    load(b1, b + Width);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      low[i] += b0 * a[i];
      high[i] += b1 * a[i];
    }
    a += Rows;
    b += 2 * Width;
  }
  if (rows == Rows && cols == 2 * Width) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      float* row = c + i * ldc;
      if (accumulate != 0) {
        Vector old;
        load(old, row);
        low[i] += old;
        load(old, row + Width);
        high[i] += old;
      }
      store(row, low[i]);
      store(row + Width, high[i]);
    }
    return;
  }
  float whole[Rows][2 * Width];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    store(whole[i], low[i]);
    store(whole[i] + Width, high[i]);
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      float& to = c[i * ldc + j];
      to = accumulate != 0 ? to + whole[i][j] : whole[i][j];
    }
  }
}

void tile_baseline(const float* a, const float* b, int64_t k, float* c, int64_t ldc, int64_t rows,
                   int64_t cols, int accumulate) {
  tile_body<4, 4>(a, b, k, c, ldc, rows, cols, accumulate);  // 8 of 16 registers accumulate
}

#if defined(__x86_64__)
// Fused multiply-add: half the instructions. Float code only, where no rounding is promised.
#if defined(__clang__)
#define NARROW_CONTRACT
#else
#define NARROW_CONTRACT , gnu::optimize("fp-contract=fast")
#endif
[[gnu::target("avx2,fma") NARROW_CONTRACT]] void tile_avx2(const float* a, const float* b,
                                                           int64_t k, float* c, int64_t ldc,
                                                           int64_t rows, int64_t cols,
                                                           int accumulate) {
  tile_body<8, 6>(a, b, k, c, ldc, rows, cols, accumulate);  // 12 of 16
}
[[gnu::target("avx512f") NARROW_CONTRACT]] void tile_avx512(const float* a, const float* b,
                                                            int64_t k, float* c, int64_t ldc,
                                                            int64_t rows, int64_t cols,
                                                            int accumulate) {
  tile_body<16, 12>(a, b, k, c, ldc, rows, cols, accumulate);  // 24 of 32
}
#undef NARROW_CONTRACT
#endif

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// Panels of `width` lines: element (line, p) of a panel at p * width + line.
void pack(const float* data, int64_t line_stride, int64_t depth_stride, int64_t lines,
          int64_t depth, int64_t width, float alpha, float* panels) {
  const int64_t count = ceil_div(lines, width);
  parallel_for(count, std::max<int64_t>(1, 16384 / (width * depth + 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t panel = begin; panel < end; ++panel) {
                   float* to = panels + panel * width * depth;
                   const float* from = data + panel * width * line_stride;
                   const int64_t filled = std::min(width, lines - panel * width);
                   for (int64_t p = 0; p < depth; ++p, to += width, from += depth_stride) {
                     for (int64_t i = 0; i < filled; ++i) to[i] = alpha * from[i * line_stride];
                     for (int64_t i = filled; i < width; ++i) to[i] = 0;
                   }
                 }
               });
}

}  // namespace

const GemmKernel& gemm_kernel() {
#if defined(__x86_64__)
  static const GemmKernel kAvx512{"avx512", 12, 32, tile_avx512};
  static const GemmKernel kAvx2{"avx2", 6, 16, tile_avx2};
  if (isa_enabled(Isa::avx512_vnni)) return kAvx512;
  if (isa_enabled(Isa::avx2)) return kAvx2;
#endif
  static const GemmKernel kBaseline{"portable", 4, 8, tile_baseline};
  return kBaseline;
}

size_t packed_rows_elements(const GemmKernel& kernel, int64_t m, int64_t k) {
  return static_cast<size_t>(ceil_div(m, kernel.tile_m) * kernel.tile_m * k);
}

size_t packed_columns_elements(const GemmKernel& kernel, int64_t n, int64_t k) {
  return static_cast<size_t>(ceil_div(n, kernel.tile_n) * kernel.tile_n * k);
}

void pack_rows(const GemmKernel& kernel, const MatrixView& a, int64_t m, int64_t k, float alpha,
               float* panels) {
  pack(a.data, a.row_stride, a.col_stride, m, k, kernel.tile_m, alpha, panels);
}

void pack_columns(const GemmKernel& kernel, const MatrixView& b, int64_t n, int64_t k,
                  float* panels) {
  pack(b.data, b.col_stride, b.row_stride, n, k, kernel.tile_n, 1.0F, panels);
}

void multiply_packed(const GemmKernel& kernel, const float* a_panels, const float* b_panels,
                     int64_t m, int64_t n, int64_t k, float* c, int64_t ldc, GemmInto into) {
  const int64_t m_panels = ceil_div(m, kernel.tile_m);
  const int64_t n_panels = ceil_div(n, kernel.tile_n);
  if (k == 0 && into == GemmInto::overwrite) {
    for (int64_t i = 0; i < m; ++i) std::fill_n(c + i * ldc, n, 0.0F);
    return;
  }
  // A block is one column panel by up to 16 row panels: the B panel stays in cache over them.
  constexpr int64_t kRowPanels = 16;
  const int64_t row_blocks = ceil_div(m_panels, kRowPanels);
  const auto block = [&](int64_t index) {
    const int64_t j = index / row_blocks;
    const int64_t first = index % row_blocks * kRowPanels;
    const int64_t last = std::min(first + kRowPanels, m_panels);
    for (int64_t p = 0; p < k; p += kDepth) {
      const int64_t depth = std::min(kDepth, k - p);
      const float* b = b_panels + (j * k + p) * kernel.tile_n;
      const int accumulate = p > 0 || into == GemmInto::add ? 1 : 0;
      for (int64_t i = first; i < last; ++i) {
        kernel.tile(a_panels + (i * k + p) * kernel.tile_m, b, depth,
                    c + i * kernel.tile_m * ldc + j * kernel.tile_n, ldc,
                    std::min(kernel.tile_m, m - i * kernel.tile_m),
                    std::min(kernel.tile_n, n - j * kernel.tile_n), accumulate);
      }
    }
  };
  // About 10 microseconds of work: less does not pay for waking a thread.
  constexpr int64_t kMinimumMacs = int64_t{1} << 18;
  if (m * n * k < kMinimumMacs) {
    for (int64_t i = 0; i < n_panels * row_blocks; ++i) block(i);
  } else {
    parallel_blocks(n_panels * row_blocks, block);
  }
}

}  // namespace narrow::ops
