// SPDX-License-Identifier: Apache-2.0
#include "narrow/runtime/reorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow {
namespace {

constexpr int64_t kVectorBytes = 16;  // every target has vectors this wide

/// Work of one block: half of a 32 KiB first-level cache for the source, the rest for the result.
constexpr int64_t kBlockBytes = 16384;

template <class T>
struct Lanes;
template <>
struct Lanes<uint8_t> {
  typedef uint8_t Vector __attribute__((vector_size(kVectorBytes)));
  static Vector low(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  }
  static Vector high(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                   31);
  }
};
template <>
struct Lanes<uint16_t> {
  typedef uint16_t Vector __attribute__((vector_size(kVectorBytes)));
  static Vector low(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  }
  static Vector high(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  }
};
template <>
struct Lanes<uint32_t> {
  typedef uint32_t Vector __attribute__((vector_size(kVectorBytes)));
  static Vector low(Vector a, Vector b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
  static Vector high(Vector a, Vector b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
};
template <>
struct Lanes<uint64_t> {
  typedef uint64_t Vector __attribute__((vector_size(kVectorBytes)));
  static Vector low(Vector a, Vector b) { return __builtin_shufflevector(a, b, 0, 2); }
  static Vector high(Vector a, Vector b) { return __builtin_shufflevector(a, b, 1, 3); }
};

template <class T>
constexpr int64_t kTile = kVectorBytes / int64_t{sizeof(T)};

/// One square tile in registers. Interleaving row i with row i + n/2, log2(n) times, transposes.
template <class T>
void transpose_tile(const T* src, int64_t src_stride, T* dst, int64_t dst_stride) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int64_t n = kTile<T>;
  std::array<Vector, n> rows;
  std::array<Vector, n> mixed;
  for (int64_t i = 0; i < n; ++i) std::memcpy(&rows[i], src + i * src_stride, kVectorBytes);
  for (int64_t round = 1; round < n; round *= 2) {
    for (int64_t i = 0; i < n / 2; ++i) {
      mixed[2 * i] = Lanes<T>::low(rows[i], rows[i + n / 2]);
      mixed[2 * i + 1] = Lanes<T>::high(rows[i], rows[i + n / 2]);
    }
    rows = mixed;
  }
  for (int64_t i = 0; i < n; ++i) std::memcpy(dst + i * dst_stride, &rows[i], kVectorBytes);
}

/// Two to four channels, as pictures have: the loop over them is unrolled.
template <class T, int64_t kRows>
void transpose_few_rows(const T* src, T* dst, int64_t columns, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t r = 0; r < kRows; ++r) dst[c * kRows + r] = src[r * columns + c];
  }
}

template <class T>
void transpose_scalar(const T* src, T* dst, int64_t rows, int64_t columns, int64_t begin,
                      int64_t end) {
  if (rows == 2) return transpose_few_rows<T, 2>(src, dst, columns, begin, end);
  if (rows == 3) return transpose_few_rows<T, 3>(src, dst, columns, begin, end);
  if (rows == 4) return transpose_few_rows<T, 4>(src, dst, columns, begin, end);
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t r = 0; r < rows; ++r) dst[c * rows + r] = src[r * columns + c];
  }
}

/// Columns [begin, end) of one matrix. Tiles at the borders overlap their neighbours, which writes
/// the same values twice.
template <class T>
void transpose_strip(const T* src, T* dst, int64_t rows, int64_t columns, int64_t begin,
                     int64_t end) {
  constexpr int64_t n = kTile<T>;
  if (rows < n || end - begin < n) {
    return transpose_scalar(src, dst, rows, columns, begin, end);
  }
  for (int64_t c = begin; c < end; c += n) {
    const int64_t column = std::min(c, end - n);
    for (int64_t r = 0; r < rows; r += n) {
      const int64_t row = std::min(r, rows - n);
      transpose_tile(src + row * columns + column, columns, dst + column * rows + row, rows);
    }
  }
}

template <class T>
void transpose_matrices(const T* src, T* dst, int64_t batch, int64_t rows, int64_t columns) {
  // Strips of whole tiles of columns, as many as fit the cache block.
  const int64_t wanted = kBlockBytes / (int64_t{sizeof(T)} * std::max<int64_t>(rows, 1));
  const int64_t strip = std::max<int64_t>(wanted / kTile<T>, 1) * kTile<T>;
  const int64_t strips = (columns + strip - 1) / strip;
  // Several small matrices make one block of work.
  const int64_t matrix_bytes = rows * columns * int64_t{sizeof(T)};
  const int64_t per_block =
      strips > 1 ? 1 : std::max<int64_t>(kBlockBytes / std::max<int64_t>(matrix_bytes, 1), 1);
  parallel_for(batch * strips, per_block, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t matrix = i / strips;
      const int64_t begin = i % strips * strip;
      transpose_strip(src + matrix * rows * columns, dst + matrix * rows * columns, rows, columns,
                      begin, std::min(begin + strip, columns));
    }
  });
}

template <class T>
void transpose_as(const std::byte* src, std::byte* dst, int64_t batch, int64_t rows,
                  int64_t columns) {
  transpose_matrices(reinterpret_cast<const T*>(src), reinterpret_cast<T*>(dst), batch, rows,
                     columns);
}

}  // namespace

bool same_memory_order(std::span<const int64_t> dims) {
  if (dims.size() < 3) return true;
  return dims[1] <= 1 || num_elements(dims, 2, dims.size()) <= 1 || dims[0] == 0;
}

void transpose(const std::byte* src, std::byte* dst, int64_t batch, int64_t rows, int64_t columns,
               size_t element_bytes) {
  switch (element_bytes) {
    case 1:
      return transpose_as<uint8_t>(src, dst, batch, rows, columns);
    case 2:
      return transpose_as<uint16_t>(src, dst, batch, rows, columns);
    case 4:
      return transpose_as<uint32_t>(src, dst, batch, rows, columns);
    case 8:
      return transpose_as<uint64_t>(src, dst, batch, rows, columns);
    default:
      throw Error(ErrorCode::internal,
                  fmt::format("no transpose for elements of {} bytes", element_bytes));
  }
}

void reorder(const TensorView& src, const TensorView& dst) {
  const size_t bytes = packed_bytes(src.dtype, src.elements());
  if (src.layout == dst.layout || same_memory_order(src.dims)) {
    if (bytes > 0 && dst.data != src.data) std::memcpy(dst.data, src.data, bytes);
    return;
  }
  if (is_sub_byte(src.dtype)) {
    throw Error(ErrorCode::internal, fmt::format("no reorder for {}", to_string(src.dtype)));
  }
  const int64_t channels = src.dims[1];
  const int64_t pixels = num_elements(src.dims, 2, src.dims.size());
  const auto element_bytes = static_cast<size_t>(bits(src.dtype)) / 8;
  if (dst.layout == Layout::channels_last) {
    transpose(src.data, dst.data, src.dims[0], channels, pixels, element_bytes);
  } else {
    transpose(src.data, dst.data, src.dims[0], pixels, channels, element_bytes);
  }
}

Tensor to_layout(const Tensor& tensor, Layout layout) {
  Tensor out(tensor.dtype(), tensor.dims());
  // The view type has no const form; the source is only read.
  auto* src = const_cast<std::byte*>(tensor.raw());
  reorder({tensor.dtype(), tensor.dims(), Layout::plain, src},
          {tensor.dtype(), tensor.dims(), layout, out.mutable_raw()});
  return out;
}

}  // namespace narrow
