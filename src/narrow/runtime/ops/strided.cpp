// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/ops/strided.h"

#include <fmt/format.h>

#include <cstring>

#include "narrow/core/error.h"
#include "narrow/runtime/ops/rows.h"

namespace narrow::ops {
namespace {

/// 16-byte elements (complex128 is not a DType; pairs of int64 are): copied as two words.
struct Wide {
  uint64_t word[2];
};

template <class T>
void copy_elements(T* dst, const T* src, const LoopNest<2>& nest) {
  const int64_t ds = nest.row_strides()[0];
  const int64_t ss = nest.row_strides()[1];
  for_rows(nest, [&](const std::array<int64_t, 2>& at, int64_t n) {
    T* to = dst + at[0];
    const T* from = src + at[1];
    if (ds == 1 && ss == 1) {
      std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
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

Dims broadcast_strides(const TensorView& view, size_t rank) {
  const Dims own = memory_strides(view);
  Dims strides(rank, 0);
  const size_t missing = rank - own.size();
  for (size_t i = 0; i < own.size(); ++i) strides[missing + i] = view.dims[i] == 1 ? 0 : own[i];
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
