// SPDX-License-Identifier: Apache-2.0
#include "narrow/formats/onnx/wire.h"

#include <fmt/format.h>

#include <cstring>
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

}  // namespace narrow::onnx
