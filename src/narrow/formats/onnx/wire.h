// SPDX-License-Identifier: Apache-2.0
// The protobuf wire format: a cursor over the fields of one message, and the sizes and bytes of
// fields to write. Only protozero's varints are used: its pbf_reader keeps lengths in 32 bits and
// asserts where a hostile file needs an error.
#pragma once

#include <cstdint>
#include <cstring>
#include <protozero/varint.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/file.h"
#include "narrow/core/tensor.h"

namespace narrow::onnx {

enum class WireType : uint8_t { varint = 0, fixed64 = 1, length_delimited = 2, fixed32 = 5 };

/// Walks over the fields of a message that lies in memory. Every getter throws corrupt_data with
/// the byte offset in the file when the bytes are cut short or of another type.
class WireReader {
 public:
  /// `file` is the start of the whole file, for the offsets in messages.
  WireReader(std::string_view message, const char* file)
      : data_(message.data()), end_(message.data() + message.size()), file_(file) {}

  /// Steps to the next field; false at the end.
  bool next();
  uint32_t field() const { return field_; }
  bool is_packed() const { return type_ == WireType::length_delimited; }

  int64_t integer() const;
  float float32() const;
  std::string_view bytes() const;
  std::string string() const { return std::string(bytes()); }
  WireReader message() const { return {bytes(), file_}; }

  /// The elements of a repeated field of numbers, packed or one at a time.
  template <class F>
  void each_integer(F&& f) const {
    if (!is_packed()) return f(integer());
    const char* p = view_.data();
    const char* const end = p + view_.size();
    while (p < end) f(static_cast<int64_t>(varint(&p, end)));
  }
  /// T is float or double.
  template <class T, class F>
  void each_fixed(F&& f) const {
    const bool single = type_ == (sizeof(T) == 4 ? WireType::fixed32 : WireType::fixed64);
    const char* p = single ? reinterpret_cast<const char*>(&number_) : bytes().data();
    const size_t size = single ? sizeof(T) : view_.size();
    if (size % sizeof(T) != 0) fail("a packed field holds a broken number");
    for (size_t i = 0; i < size; i += sizeof(T)) {
      T value;
      std::memcpy(&value, p + i, sizeof(T));
      f(value);
    }
  }

  [[noreturn]] void fail(std::string_view what) const;
  const char* file() const { return file_; }

 private:
  uint64_t varint(const char** p, const char* end) const;

  const char* data_;
  const char* end_;
  const char* file_;
  const char* field_start_ = nullptr;
  uint32_t field_ = 0;
  WireType type_ = WireType::varint;
  uint64_t number_ = 0;  // of a varint or fixed field
  std::string_view view_;
};

/// One message being written: small fields in strings, the bytes of tensors by reference, so that a
/// model is never copied into one string. The size is known at any time, as the enclosing message
/// needs it first.
class WireWriter {
 public:
  void integer(uint32_t field, int64_t value);
  void float32(uint32_t field, float value);
  void bytes(uint32_t field, std::string_view value);
  /// Only if it is not empty: an empty string is the default.
  void text(uint32_t field, std::string_view value) {
    if (!value.empty()) bytes(field, value);
  }
  void message(uint32_t field, WireWriter&& inner);
  void packed_integers(uint32_t field, std::span<const int64_t> values);
  void packed_floats(uint32_t field, std::span<const float> values);
  /// The tensor's bytes; it is kept alive, not copied.
  void tensor_bytes(uint32_t field, const Tensor& tensor);

  uint64_t size() const { return size_; }
  void write_to(AtomicFile& file) const;

 private:
  struct Piece {
    std::string bytes;
    Tensor data;  // behind the bytes
  };
  void tag(uint32_t field, WireType type);
  void varint(uint64_t value);
  void append(const void* data, size_t bytes);

  std::vector<Piece> pieces_{1};
  uint64_t size_ = 0;
};

}  // namespace narrow::onnx
