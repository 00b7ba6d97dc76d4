// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/wire.h"

#include <fmt/format.h>

#include <cstring>
#include <iterator>
#include <protozero/exception.hpp>

#include "narrow/core/error.h"

namespace narrow::onnx {

void WireReader::fail(std::string_view what) const {
  const char* at = field_start_ == nullptr ? data_ : field_start_;
  throw Error(ErrorCode::corrupt_data, fmt::format("byte {}: {}", at - file_, what),
              "the file is damaged or no ONNX model; fetch or export it again");
}

uint64_t WireReader::varint(const char** p, const char* end) const {
  try {
    return protozero::decode_varint(p, end);
  } catch (const protozero::exception&) {
    fail("a number is cut short");
  }
}

bool WireReader::next() {
  if (data_ >= end_) return false;
  field_start_ = data_;
  const uint64_t tag = varint(&data_, end_);
  if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff) fail("no field of a protobuf message");
  field_ = static_cast<uint32_t>(tag >> 3);
  type_ = static_cast<WireType>(tag & 7);
  const auto left = [this] { return static_cast<uint64_t>(end_ - data_); };
  const auto fixed = [&](size_t size) {
    if (left() < size) fail("a number is cut short");
    number_ = 0;
    std::memcpy(&number_, data_, size);
    data_ += size;
  };
  switch (type_) {
    case WireType::varint:
      number_ = varint(&data_, end_);
      return true;
    case WireType::fixed64:
      fixed(8);
      return true;
    case WireType::fixed32:
      fixed(4);
      return true;
    case WireType::length_delimited: {
      const uint64_t size = varint(&data_, end_);
      if (size > left()) {
        fail(fmt::format("field {} claims {} bytes, {} are left", field_, size, left()));
      }
      view_ = {data_, static_cast<size_t>(size)};
      data_ += size;
      return true;
    }
  }
  fail(fmt::format("wire type {} does not exist in ONNX", tag & 7));
}

int64_t WireReader::integer() const {
  if (type_ != WireType::varint) fail(fmt::format("field {} should be an integer", field_));
  return static_cast<int64_t>(number_);
}

float WireReader::float32() const {
  if (type_ != WireType::fixed32) fail(fmt::format("field {} should be a float", field_));
  float f;
  std::memcpy(&f, &number_, sizeof(f));
  return f;
}

std::string_view WireReader::bytes() const {
  if (type_ != WireType::length_delimited) {
    fail(fmt::format("field {} should be bytes or a message", field_));
  }
  return view_;
}

// --- writing -------------------------------------------------------------------------------------

void WireWriter::append(const void* data, size_t bytes) {
  pieces_.back().bytes.append(static_cast<const char*>(data), bytes);
  size_ += bytes;
}

void WireWriter::varint(uint64_t value) {
  char buffer[protozero::max_varint_length];
  append(buffer, static_cast<size_t>(protozero::write_varint(buffer, value)));
}

void WireWriter::tag(uint32_t field, WireType type) {
  varint((uint64_t{field} << 3) | static_cast<uint64_t>(type));
}

void WireWriter::integer(uint32_t field, int64_t value) {
  tag(field, WireType::varint);
  varint(static_cast<uint64_t>(value));
}

void WireWriter::float32(uint32_t field, float value) {
  tag(field, WireType::fixed32);
  append(&value, sizeof(value));
}

void WireWriter::bytes(uint32_t field, std::string_view value) {
  tag(field, WireType::length_delimited);
  varint(value.size());
  append(value.data(), value.size());
}

void WireWriter::message(uint32_t field, WireWriter&& inner) {
  tag(field, WireType::length_delimited);
  varint(inner.size_);
  pieces_.back().bytes += inner.pieces_[0].bytes;
  pieces_.back().data = std::move(inner.pieces_[0].data);
  std::move(inner.pieces_.begin() + 1, inner.pieces_.end(), std::back_inserter(pieces_));
  size_ += inner.size_;
}

void WireWriter::packed_integers(uint32_t field, std::span<const int64_t> values) {
  size_t bytes = 0;
  for (const int64_t v : values) {
    bytes += static_cast<size_t>(protozero::length_of_varint(static_cast<uint64_t>(v)));
  }
  tag(field, WireType::length_delimited);
  varint(bytes);
  for (const int64_t v : values) varint(static_cast<uint64_t>(v));
}

void WireWriter::packed_floats(uint32_t field, std::span<const float> values) {
  tag(field, WireType::length_delimited);
  varint(values.size_bytes());
  append(values.data(), values.size_bytes());
}

void WireWriter::tensor_bytes(uint32_t field, const Tensor& tensor) {
  tag(field, WireType::length_delimited);
  varint(tensor.bytes());
  pieces_.back().data = tensor;
  size_ += tensor.bytes();
  pieces_.emplace_back();
}

void WireWriter::write_to(AtomicFile& file) const {
  for (const Piece& piece : pieces_) {
    file.write(piece.bytes);
    if (piece.data.defined()) file.write(piece.data.raw(), piece.data.bytes());
  }
}

}  // namespace narrow::onnx
