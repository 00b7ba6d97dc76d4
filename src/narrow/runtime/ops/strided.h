// SPDX-License-Identifier: Apache-2.0
// Loops over tensors by strides: broadcasting, transposing, slicing and memory orders are all
// strides of the same loop nest. Axes are sorted by the first operand's stride and merged where
// every operand allows, so that the innermost row is as long and as contiguous as can be.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "narrow/core/parallel.h"
#include "narrow/runtime/op_impl.h"

/// Vectorise the next loop: its iterations are independent. GCC does so at -O2 only when asked.
#if defined(_OPENMP)
#define NARROW_SIMD _Pragma("omp simd")
#elif defined(__clang__)
#define NARROW_SIMD _Pragma("clang loop vectorize(enable)")
#elif defined(__GNUC__)
#define NARROW_SIMD _Pragma("GCC ivdep")
#else
#define NARROW_SIMD
#endif

namespace narrow::ops {

/// Ranks of real models end at 6; ONNX itself sets no limit.
inline constexpr size_t kMaxRank = 16;
/// Elements per block of elementwise work: below it a thread costs more than it brings.
inline constexpr int64_t kBlockElements = int64_t{1} << 14;

/// Elements from one index to the next along each logical axis, for the view's memory order.
Dims memory_strides(std::span<const int64_t> dims, Layout layout);
inline Dims memory_strides(const TensorView& view) {
  return memory_strides(view.dims, view.layout);
}
/// The same seen from a result of the given dims: 0 along broadcast axes. Throws invalid_argument
/// where the view does not broadcast to them.
Dims broadcast_strides(const TensorView& view, std::span<const int64_t> result);

/// Throws unsupported beyond kMaxRank.
void check_rank(size_t rank);

/// Loops over N operands, outermost first. rank >= 1.
template <size_t N>
struct LoopNest {
  size_t rank = 0;
  std::array<int64_t, kMaxRank> extent{};
  std::array<std::array<int64_t, N>, kMaxRank> stride{};

  int64_t rows() const {
    int64_t n = 1;
    for (size_t i = 0; i + 1 < rank; ++i) n *= extent[i];
    return n;
  }
  int64_t row_length() const { return extent[rank - 1]; }
  const std::array<int64_t, N>& row_strides() const { return stride[rank - 1]; }
};

template <size_t N>
LoopNest<N> make_nest(std::span<const int64_t> extents,
                      const std::array<std::span<const int64_t>, N>& strides) {
  check_rank(extents.size());
  LoopNest<N> nest;
  std::array<size_t, kMaxRank> order{};
  size_t count = 0;
  for (size_t i = 0; i < extents.size(); ++i) {
    if (extents[i] == 1) continue;
    size_t at = count++;  // insertion sort: stable, by the first operand's stride
    while (at > 0 && strides[0][order[at - 1]] < strides[0][i]) {
      order[at] = order[at - 1];
      --at;
    }
    order[at] = i;
  }
  for (size_t k = 0; k < count; ++k) {
    const size_t axis = order[k];
    bool merges = nest.rank > 0;
    for (size_t n = 0; n < N && merges; ++n) {
      merges = nest.stride[nest.rank - 1][n] == strides[n][axis] * extents[axis];
    }
    if (!merges) nest.extent[nest.rank++] = 1;
    nest.extent[nest.rank - 1] *= extents[axis];
    for (size_t n = 0; n < N; ++n) nest.stride[nest.rank - 1][n] = strides[n][axis];
  }
  if (nest.rank == 0) {
    nest.rank = 1;
    nest.extent[0] = 1;
    nest.stride[0].fill(1);
  }
  return nest;
}

namespace detail {

/// Offsets of row `row` of all operands.
template <size_t N>
void row_offsets(const LoopNest<N>& nest, int64_t row, std::array<int64_t, kMaxRank>& index,
                 std::array<int64_t, N>& offset) {
  offset.fill(0);
  for (size_t i = nest.rank - 1; i-- > 0;) {
    index[i] = row % nest.extent[i];
    row /= nest.extent[i];
    for (size_t n = 0; n < N; ++n) offset[n] += index[i] * nest.stride[i][n];
  }
}

template <size_t N>
void next_row(const LoopNest<N>& nest, std::array<int64_t, kMaxRank>& index,
              std::array<int64_t, N>& offset) {
  for (size_t i = nest.rank - 1; i-- > 0;) {
    for (size_t n = 0; n < N; ++n) offset[n] += nest.stride[i][n];
    if (++index[i] < nest.extent[i]) return;
    index[i] = 0;
    for (size_t n = 0; n < N; ++n) offset[n] -= nest.extent[i] * nest.stride[i][n];
  }
}

}  // namespace detail

/// Calls body(offsets, n) for every row (or piece of a row), on all threads when there is enough:
/// `weight` is the elements of work behind each element of the nest.
template <size_t N, class Body>
void for_rows_weighted(const LoopNest<N>& nest, int64_t weight, const Body& body) {
  const int64_t rows = nest.rows();
  const int64_t length = nest.row_length();
  if (rows == 0 || length == 0) return;
  const int64_t per_block = std::max<int64_t>(1, kBlockElements / std::max<int64_t>(weight, 1));
  if (rows == 1) {
    parallel_for(length, per_block, [&](int64_t begin, int64_t end) {
      std::array<int64_t, N> offset;
      for (size_t n = 0; n < N; ++n) offset[n] = begin * nest.row_strides()[n];
      body(offset, end - begin);
    });
    return;
  }
  const int64_t rows_per_block = std::max<int64_t>(1, per_block / length);
  parallel_for(rows, rows_per_block, [&](int64_t begin, int64_t end) {
    std::array<int64_t, kMaxRank> index{};
    std::array<int64_t, N> offset;
    detail::row_offsets(nest, begin, index, offset);
    for (int64_t row = begin; row < end; ++row) {
      body(offset, length);
      detail::next_row(nest, index, offset);
    }
  });
}

template <size_t N, class Body>
void for_rows(const LoopNest<N>& nest, const Body& body) {
  for_rows_weighted(nest, 1, body);
}

/// Copies elements of `bytes` (1, 2, 4, 8 or 16) bytes between strided places; strides in elements.
void copy_strided(std::byte* dst, std::span<const int64_t> dst_strides, const std::byte* src,
                  std::span<const int64_t> src_strides, std::span<const int64_t> extents,
                  size_t bytes);

/// Copies src into dst's memory order; equal dims and element types.
void copy_view(const TensorView& dst, const TensorView& src);

}  // namespace narrow::ops
