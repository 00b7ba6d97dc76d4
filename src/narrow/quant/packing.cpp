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

template <class T>
void widen(const T* in, std::span<int32_t> out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = in[i];
}

template <class T>
void narrow_to(std::span<const int32_t> in, T* out) {
  for (size_t i = 0; i < in.size(); ++i) out[i] = static_cast<T>(in[i]);
}

/// Bits: 2 or 4. The shift pair moves a code to the top of 32 bits and back, extending its sign.
template <int Bits, bool Signed>
void unpack(const uint8_t* bytes, int64_t begin, std::span<int32_t> out) {
  constexpr int kPerByte = 8 / Bits;
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t e = begin + static_cast<int64_t>(i);
    const uint32_t high = static_cast<uint32_t>(bytes[e / kPerByte])
                          << (32 - Bits - Bits * (e % kPerByte));
    out[i] = Signed ? static_cast<int32_t>(high) >> (32 - Bits)
                    : static_cast<int32_t>(high >> (32 - Bits));
  }
}

template <int Bits>
void pack(std::span<const int32_t> in, uint8_t* out) {
  constexpr size_t kPerByte = 8 / Bits;
  constexpr uint32_t kMask = (1u << Bits) - 1;
  for (size_t i = 0; i < in.size(); i += kPerByte) {
    uint32_t byte = 0;
    for (size_t j = 0; j < kPerByte && i + j < in.size(); ++j) {
      byte |= (static_cast<uint32_t>(in[i + j]) & kMask) << (Bits * j);
    }
    out[i / kPerByte] = static_cast<uint8_t>(byte);
  }
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
      return widen(codes.data<int8_t>().data() + begin, out);
    case DType::uint8:
      return widen(codes.data<uint8_t>().data() + begin, out);
    case DType::int16:
      return widen(codes.data<int16_t>().data() + begin, out);
    case DType::uint16:
      return widen(codes.data<uint16_t>().data() + begin, out);
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
      return narrow_to(values, codes.mutable_data<int8_t>().data() + begin);
    case DType::uint8:
      return narrow_to(values, codes.mutable_data<uint8_t>().data() + begin);
    case DType::int16:
      return narrow_to(values, codes.mutable_data<int16_t>().data() + begin);
    case DType::uint16:
      return narrow_to(values, codes.mutable_data<uint16_t>().data() + begin);
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
