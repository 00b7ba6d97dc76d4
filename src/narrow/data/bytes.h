// SPDX-License-Identifier: Apache-2.0
// Integers in files, in either byte order and at any address.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace narrow {

template <class T>
T load_little_endian(const std::byte* p) {
  uint64_t value = 0;
  for (size_t i = sizeof(T); i-- > 0;) value = (value << 8) | static_cast<uint64_t>(p[i]);
  return static_cast<T>(value);
}

template <class T>
T load_big_endian(const std::byte* p) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = (value << 8) | static_cast<uint64_t>(p[i]);
  return static_cast<T>(value);
}

template <class T>
void append_little_endian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    out += static_cast<char>((static_cast<uint64_t>(value) >> (8 * i)) & 0xff);
  }
}

/// Reverses each element of `width` bytes.
inline void reverse_elements(std::span<std::byte> bytes, size_t width) {
  for (size_t at = 0; at + width <= bytes.size(); at += width) {
    for (size_t i = 0; i < width / 2; ++i) std::swap(bytes[at + i], bytes[at + width - 1 - i]);
  }
}
inline void swap_from_big_endian(std::span<std::byte> bytes, size_t width) {
  if constexpr (std::endian::native == std::endian::little) reverse_elements(bytes, width);
}
inline void swap_from_little_endian(std::span<std::byte> bytes, size_t width) {
  if constexpr (std::endian::native == std::endian::big) reverse_elements(bytes, width);
}

}  // namespace narrow
