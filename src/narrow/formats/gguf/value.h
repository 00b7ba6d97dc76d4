// SPDX-License-Identifier: Apache-2.0
// One value of a GGUF file's metadata. It keeps the bytes as the file has them (checked once) and
// decodes on request, so that a vocabulary of 250,000 texts costs nothing until it is asked for and
// a copied file keeps every type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace narrow {

/// The numbers that files have.
enum class GgufKind : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

/// Null for a number that is not a kind.
const char* to_string(GgufKind kind);

class GgufValue {
 public:
  GgufValue() = default;

  static GgufValue u8(uint8_t x) { return number(GgufKind::u8, &x, sizeof(x)); }
  static GgufValue i8(int8_t x) { return number(GgufKind::i8, &x, sizeof(x)); }
  static GgufValue u16(uint16_t x) { return number(GgufKind::u16, &x, sizeof(x)); }
  static GgufValue i16(int16_t x) { return number(GgufKind::i16, &x, sizeof(x)); }
  static GgufValue u32(uint32_t x) { return number(GgufKind::u32, &x, sizeof(x)); }
  static GgufValue i32(int32_t x) { return number(GgufKind::i32, &x, sizeof(x)); }
  static GgufValue f32(float x) { return number(GgufKind::f32, &x, sizeof(x)); }
  static GgufValue boolean(bool x) { return number(GgufKind::boolean, &x, sizeof(x)); }
  static GgufValue u64(uint64_t x) { return number(GgufKind::u64, &x, sizeof(x)); }
  static GgufValue i64(int64_t x) { return number(GgufKind::i64, &x, sizeof(x)); }
  static GgufValue f64(double x) { return number(GgufKind::f64, &x, sizeof(x)); }
  static GgufValue string(std::string_view text);
  static GgufValue strings(std::span<const std::string> texts);
  static GgufValue i32s(std::span<const int32_t> x);
  static GgufValue u32s(std::span<const uint32_t> x);
  static GgufValue f32s(std::span<const float> x);
  static GgufValue booleans(const std::vector<bool>& x);
  static GgufValue arrays(std::span<const GgufValue> elements);

  GgufKind kind() const { return kind_; }
  /// Of an array.
  GgufKind element_kind() const { return element_; }
  /// Elements of an array; 1 otherwise.
  uint64_t count() const { return count_; }

  /// Any integer or truth value; throws corrupt_data naming what it is instead.
  int64_t as_int() const;
  /// Any number.
  double as_float() const;
  bool as_bool() const;
  /// Into the file's memory, which this value keeps alive.
  std::string_view as_string() const;
  /// Of arrays of such elements.
  std::vector<int64_t> as_ints() const;
  std::vector<float> as_floats() const;
  std::vector<std::string_view> as_strings() const;
  std::vector<GgufValue> as_arrays() const;

  /// A line for people: `"llama"`, `4096`, `32000 strings`.
  std::string describe() const;
  /// The value behind its kind, as a file has it.
  std::span<const std::byte> payload() const { return payload_; }
  /// Same kinds and bytes.
  friend bool operator==(const GgufValue& a, const GgufValue& b);

  /// Reads a value of this kind from the front of `bytes` and moves `bytes` behind it. Checks
  /// everything in it; throws corrupt_data.
  static GgufValue read(GgufKind kind, std::shared_ptr<const void> owner,
                        std::span<const std::byte>& bytes);

 private:
  static GgufValue number(GgufKind kind, const void* data, size_t bytes);
  static GgufValue owned(GgufKind kind, GgufKind element, uint64_t count,
                         std::vector<std::byte> payload);
  template <class T>
  static GgufValue numbers(GgufKind element, std::span<const T> x);
  /// The elements of an array, or the value itself, behind any header.
  std::span<const std::byte> elements() const;
  [[noreturn]] void mismatch(const char* wanted) const;

  GgufKind kind_ = GgufKind::u8;
  GgufKind element_ = GgufKind::u8;
  uint64_t count_ = 1;
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> payload_;
};

/// Bytes of a number of this kind; 0 for texts and arrays.
size_t gguf_kind_bytes(GgufKind kind);

/// The front of `bytes` as a little-endian number; throws corrupt_data if it is cut off.
template <class T>
T take_number(std::span<const std::byte>& bytes);
/// A text behind its 64-bit length, of at most `max_bytes`.
std::string_view take_text(std::span<const std::byte>& bytes, uint64_t max_bytes);

}  // namespace narrow
