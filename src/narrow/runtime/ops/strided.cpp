// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/strided.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

/// 16-byte elements (complex128 is not a DType; pairs of int64 are): copied as two words.
struct Wide {
  uint64_t word[2];
};

constexpr int64_t kTile = 16;  // 16 lines on either side: a quarter of a 32 KiB L1 cache

/// to[r * row_to + c] = from[r + c * column_from] for `rows` (at most kTile) by `columns`.
template <class T>
void transpose_strip(T* to, int64_t row_to, const T* from, int64_t column_from, int64_t rows,
                     int64_t columns) {
  for (int64_t first = 0; first < columns; first += kTile) {
    const int64_t last = std::min(first + kTile, columns);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = first; c < last; ++c) to[r * row_to + c] = from[r + c * column_from];
    }
  }
}

/// to[i] = from[2 * i]: every other channel of an image.
template <class T>
void copy_every_other(T* to, const T* from, int64_t n) {
  int64_t i = 0;
  if constexpr (sizeof(T) == 1) {
    using Bytes [[gnu::vector_size(16)]] = unsigned char;
    for (; i + 16 < n; i += 16) {  // its last load reads from[2 * i + 31]: there is one more
      Bytes a;
      Bytes b;
      std::memcpy(&a, from + 2 * i, sizeof a);
      std::memcpy(&b, from + 2 * i + 16, sizeof b);
      const Bytes even =
          __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      std::memcpy(to + i, &even, sizeof even);
    }
  }
  for (; i < n; ++i) to[i] = from[2 * i];
}

/// The innermost axis is contiguous in dst, another one (`axis`) in src: in tiles, so that both
/// sides are read and written by cache lines.
template <class T>
void copy_tiled(T* dst, const T* src, const LoopNest<2>& nest, size_t axis) {
  const size_t inner = nest.rank - 1;
  const int64_t columns = nest.extent[inner];
  const int64_t strips = (nest.extent[axis] + kTile - 1) / kTile;
  const int64_t planes = nest.rows() / nest.extent[axis];
  parallel_for(planes * strips, std::max<int64_t>(1, kBlockElements / (kTile * columns)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t index = begin; index < end; ++index) {
                   const int64_t first = index % strips * kTile;
                   int64_t to = first * nest.stride[axis][0];
                   int64_t from = first;
                   int64_t rest = index / strips;
                   for (size_t i = inner; i-- > 0;) {
                     if (i == axis) continue;
                     to += rest % nest.extent[i] * nest.stride[i][0];
                     from += rest % nest.extent[i] * nest.stride[i][1];
                     rest /= nest.extent[i];
                   }
                   transpose_strip(dst + to, nest.stride[axis][0], src + from,
                                   nest.stride[inner][1],
                                   std::min(kTile, nest.extent[axis] - first), columns);
                 }
               });
}

/// The outer axis that is contiguous in src where the innermost is not; rank if there is none, or
/// too little of it to make tiles.
size_t tiled_axis(const LoopNest<2>& nest) {
  constexpr int64_t kLeast = 4;
  if (nest.row_strides()[0] != 1 || nest.row_strides()[1] <= 1) return nest.rank;
  if (nest.row_length() < kLeast || nest.rows() == 0) return nest.rank;
  for (size_t i = 0; i + 1 < nest.rank; ++i) {
    if (nest.stride[i][1] == 1 && nest.extent[i] >= kLeast) return i;
  }
  return nest.rank;
}

template <class T>
void copy_elements(T* dst, const T* src, const LoopNest<2>& nest) {
  if (const size_t axis = tiled_axis(nest); axis < nest.rank) {
    return copy_tiled(dst, src, nest, axis);
  }
  const int64_t ds = nest.row_strides()[0];
  const int64_t ss = nest.row_strides()[1];
  for_rows(nest, [&](const std::array<int64_t, 2>& at, int64_t n) {
    T* to = dst + at[0];
    const T* from = src + at[1];
    if (ds == 1 && ss == 1) {
      std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
    } else if (ds == 1 && ss == 2) {
      copy_every_other(to, from, n);
    } else if (ds == 1 && ss == 0) {
      const T value = *from;
      for (int64_t i = 0; i < n; ++i) to[i] = value;
    } else {
      for (int64_t i = 0; i < n; ++i) to[i * ds] = from[i * ss];
    }
  });
}

}  // namespace

Dims memory_strides(std::span<const int64_t> dims, Layout layout) {
  if (layout == Layout::plain || dims.size() < 3) return row_major_strides(dims);
  Dims strides(dims.size());
  strides[1] = 1;
  int64_t stride = dims[1];
  for (size_t i = dims.size(); i-- > 2;) {
    strides[i] = stride;
    stride *= dims[i];
  }
  strides[0] = stride;
  return strides;
}

Dims broadcast_strides(const TensorView& view, std::span<const int64_t> result) {
  const Dims own = memory_strides(view);
  Dims strides(result.size(), 0);
  bool fits = own.size() <= result.size();
  const size_t missing = fits ? result.size() - own.size() : 0;
  for (size_t i = 0; i < own.size() && fits; ++i) {
    fits = view.dims[i] == 1 || view.dims[i] == result[missing + i];
    strides[missing + i] = view.dims[i] == 1 ? 0 : own[i];
  }
  if (!fits) {
    throw Error(ErrorCode::invalid_argument, fmt::format("shape {} does not broadcast to {}",
                                                         to_string(view.dims), to_string(result)));
  }
  return strides;
}

void check_rank(size_t rank) {
  if (rank > kMaxRank) {
    throw Error(ErrorCode::unsupported,
                fmt::format("a tensor of rank {}; at most {} is supported", rank, kMaxRank));
  }
}

void copy_strided(std::byte* dst, std::span<const int64_t> dst_strides, const std::byte* src,
                  std::span<const int64_t> src_strides, std::span<const int64_t> extents,
                  size_t bytes) {
  const auto nest = make_nest<2>(extents, {dst_strides, src_strides});
  const auto copy = [&]<class T>(std::type_identity<T>) {
    copy_elements(reinterpret_cast<T*>(dst), reinterpret_cast<const T*>(src), nest);
  };
  switch (bytes) {
    case 1:
      return copy(std::type_identity<uint8_t>{});
    case 2:
      return copy(std::type_identity<uint16_t>{});
    case 4:
      return copy(std::type_identity<uint32_t>{});
    case 8:
      return copy(std::type_identity<uint64_t>{});
    case 16:
      return copy(std::type_identity<Wide>{});
    default:
      throw Error(ErrorCode::internal, fmt::format("elements of {} bytes", bytes));
  }
}

void copy_view(const TensorView& dst, const TensorView& src) {
  if (dst.data == src.data) return;
  if (dst.layout == src.layout) {
    std::memcpy(dst.data, src.data, view_bytes(src));
    return;
  }
  copy_strided(dst.data, memory_strides(dst), src.data, memory_strides(src), dst.dims,
               static_cast<size_t>(bits(src.dtype)) / 8);
}

}  // namespace narrow::ops
