// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow {
namespace {

constexpr int64_t kBlock = int64_t{1} << 16;  // a multiple of every codes_per_byte
constexpr int64_t kChunk = 4096;              // int32 buffer of 16 KiB: half of a first-level cache

constexpr size_t kLanes = 16;  // a constant count, so that the compiler makes vector code

template <class To, class From>
void convert(const From* in, size_t count, To* out) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    std::array<To, kLanes> part;  // a local array cannot alias the input
    for (size_t j = 0; j < kLanes; ++j) part[j] = static_cast<To>(in[i + j]);
    std::copy(part.begin(), part.end(), out + i);
  }
  for (; i < count; ++i) out[i] = static_cast<To>(in[i]);
}

/// The code at `place` of a byte; a shift to the top of 32 bits and back extends its sign.
template <int Bits, bool Signed>
int32_t code_at(uint32_t byte, int place) {
  const uint32_t high = byte << (32 - Bits - Bits * place);
  return Signed ? static_cast<int32_t>(high) >> (32 - Bits)
                : static_cast<int32_t>(high >> (32 - Bits));
}

template <int Bits, bool Signed>
void unpack(const uint8_t* bytes, int64_t begin, std::span<int32_t> out) {
  constexpr int kPerByte = 8 / Bits;
  size_t i = 0;
  int64_t e = begin;
  const auto one = [&] {
    out[i++] = code_at<Bits, Signed>(bytes[e / kPerByte], static_cast<int>(e % kPerByte));
    ++e;
  };
  while (i < out.size() && e % kPerByte != 0) one();
  const uint8_t* next = bytes + e / kPerByte;
  for (; i + kPerByte <= out.size(); i += kPerByte, e += kPerByte, ++next) {
    for (int j = 0; j < kPerByte; ++j)
      out[i + static_cast<size_t>(j)] = code_at<Bits, Signed>(*next, j);
  }
  while (i < out.size()) one();
}

template <int Bits>
void pack(std::span<const int32_t> in, uint8_t* out) {
  constexpr size_t kPerByte = 8 / Bits;
  constexpr uint32_t kMask = (1u << Bits) - 1;
  const size_t whole = in.size() / kPerByte;
  for (size_t b = 0; b < whole; ++b) {
    uint32_t byte = 0;
    for (size_t j = 0; j < kPerByte; ++j) {
      byte |= (static_cast<uint32_t>(in[b * kPerByte + j]) & kMask) << (Bits * j);
    }
    out[b] = static_cast<uint8_t>(byte);
  }
  if (in.size() % kPerByte == 0) return;
  uint32_t byte = 0;
  for (size_t i = whole * kPerByte, j = 0; i < in.size(); ++i, ++j) {
    byte |= (static_cast<uint32_t>(in[i]) & kMask) << (Bits * j);
  }
  out[whole] = static_cast<uint8_t>(byte);
}

void check_span(const Tensor& codes, int64_t begin, size_t count) {
  if (begin < 0 || begin > codes.elements() ||
      static_cast<int64_t>(count) > codes.elements() - begin) {
    throw Error(ErrorCode::internal,
                fmt::format("codes [{}, +{}) lie outside {}", begin, count, codes.describe()));
  }
}

[[noreturn]] void refuse(const Tensor& codes) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} does not hold codes of 2 to 16 bits", codes.describe()));
}

}  // namespace

void read_codes(const Tensor& codes, int64_t begin, std::span<int32_t> out) {
  check_span(codes, begin, out.size());
  const auto* bytes = reinterpret_cast<const uint8_t*>(codes.raw());
  switch (codes.dtype()) {
    case DType::int8:
      return convert(codes.data<int8_t>().data() + begin, out.size(), out.data());
    case DType::uint8:
      return convert(codes.data<uint8_t>().data() + begin, out.size(), out.data());
    case DType::int16:
      return convert(codes.data<int16_t>().data() + begin, out.size(), out.data());
    case DType::uint16:
      return convert(codes.data<uint16_t>().data() + begin, out.size(), out.data());
    case DType::int4:
      return unpack<4, true>(bytes, begin, out);
    case DType::uint4:
      return unpack<4, false>(bytes, begin, out);
    case DType::int2:
      return unpack<2, true>(bytes, begin, out);
    case DType::uint2:
      return unpack<2, false>(bytes, begin, out);
    default:
      refuse(codes);
  }
}

void write_codes(Tensor& codes, int64_t begin, std::span<const int32_t> values) {
  check_span(codes, begin, values.size());
  const int64_t per_byte = codes_per_byte(codes.dtype());
  if (begin % per_byte != 0) {
    throw Error(ErrorCode::internal,
                fmt::format("a write to {} begins inside a byte, at {}", codes.describe(), begin));
  }
  switch (codes.dtype()) {
    case DType::int8:
      return convert(values.data(), values.size(), codes.mutable_data<int8_t>().data() + begin);
    case DType::uint8:
      return convert(values.data(), values.size(), codes.mutable_data<uint8_t>().data() + begin);
    case DType::int16:
      return convert(values.data(), values.size(), codes.mutable_data<int16_t>().data() + begin);
    case DType::uint16:
      return convert(values.data(), values.size(), codes.mutable_data<uint16_t>().data() + begin);
    case DType::int4:
    case DType::uint4:
      return pack<4>(values, reinterpret_cast<uint8_t*>(codes.mutable_raw()) + begin / per_byte);
    case DType::int2:
    case DType::uint2:
      return pack<2>(values, reinterpret_cast<uint8_t*>(codes.mutable_raw()) + begin / per_byte);
    default:
      refuse(codes);
  }
}

Tensor pack_codes(std::span<const int32_t> values, DType storage, Dims dims) {
  Tensor codes(storage, std::move(dims));
  if (static_cast<size_t>(codes.elements()) != values.size()) {
    throw Error(ErrorCode::internal,
                fmt::format("{} codes for {}", values.size(), codes.describe()));
  }
  if (!is_integer(storage) || bits(storage) > 16) refuse(codes);
  const int64_t lo = integer_min(storage);
  const int64_t hi = integer_max(storage);
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < lo || values[i] > hi) {
      throw Error(ErrorCode::numeric_failure, fmt::format("code {} at element {} does not fit {}",
                                                          values[i], i, to_string(storage)));
    }
  }
  write_codes(codes, 0, values);
  return codes;
}

Tensor unpack_to_bytes(const Tensor& codes) {
  if (!is_integer(codes.dtype()) || bits(codes.dtype()) > 8) refuse(codes);
  if (!is_sub_byte(codes.dtype())) return codes;
  Tensor bytes(is_signed_integer(codes.dtype()) ? DType::int8 : DType::uint8, codes.dims());
  parallel_for(codes.elements(), kBlock, [&](int64_t begin, int64_t end) {
    std::array<int32_t, kChunk> buffer;
    for (int64_t i = begin; i < end; i += kChunk) {
      const std::span<int32_t> part(buffer.data(), static_cast<size_t>(std::min(kChunk, end - i)));
      read_codes(codes, i, part);
      write_codes(bytes, i, part);
    }
  });
  return bytes;
}

}  // namespace narrow
