// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "narrow/core/error.h"

namespace narrow {
namespace {

constexpr size_t kAlignment = 64;  // one cache line, one 512-bit vector

std::shared_ptr<std::byte> allocate(size_t bytes) {
  // One spare vector at the end, so that kernels may read a whole vector at the tail.
  const size_t padded = (bytes + 2 * kAlignment - 1) / kAlignment * kAlignment;
  void* p = ::operator new (padded, std::align_val_t{kAlignment}, std::nothrow);
  if (p == nullptr) {
    throw Error(ErrorCode::resource_exhausted, fmt::format("no memory for {} bytes", bytes));
  }
  std::memset(p, 0, padded);
  return {static_cast<std::byte*>(p),
          [](std::byte* q) { ::operator delete (q, std::align_val_t{kAlignment}); }};
}

/// The i-th value of a packed sub-byte array.
int64_t unpack_one(const std::byte* data, int64_t i, int bits, bool is_signed) {
  const int64_t bit = i * bits;
  const auto byte = static_cast<unsigned>(data[bit / 8]);
  const auto code = static_cast<int64_t>((byte >> (bit % 8)) & ((1u << bits) - 1));
  const int64_t sign_bit = int64_t{1} << (bits - 1);
  return is_signed && code >= sign_bit ? code - 2 * sign_bit : code;
}

template <class T>
void append_as(std::vector<T>& out, const Tensor& t) {
  const auto convert = [&out](auto values, auto to) {
    for (const auto v : values) out.push_back(static_cast<T>(to(v)));
  };
  const auto same = [](auto v) { return v; };
  switch (t.dtype()) {
    case DType::float32:
      return convert(t.data<float>(), same);
    case DType::float64:
      return convert(t.data<double>(), same);
    case DType::float16:
      return convert(t.data<Half>(), [](Half h) { return to_float(h); });
    case DType::bfloat16:
      return convert(t.data<BFloat16>(), [](BFloat16 b) { return to_float(b); });
    case DType::int8:
      return convert(t.data<int8_t>(), same);
    case DType::uint8:
      return convert(t.data<uint8_t>(), same);
    case DType::int16:
      return convert(t.data<int16_t>(), same);
    case DType::uint16:
      return convert(t.data<uint16_t>(), same);
    case DType::int32:
      return convert(t.data<int32_t>(), same);
    case DType::uint32:
      return convert(t.data<uint32_t>(), same);
    case DType::int64:
      return convert(t.data<int64_t>(), same);
    case DType::uint64:
      return convert(t.data<uint64_t>(), same);
    case DType::boolean:
      for (int64_t i = 0; i < t.elements(); ++i) {
        out.push_back(t.raw()[i] != std::byte{0} ? T{1} : T{0});
      }
      return;
    case DType::int4:
    case DType::uint4:
    case DType::int2:
    case DType::uint2:
      for (int64_t i = 0; i < t.elements(); ++i) {
        out.push_back(
            static_cast<T>(unpack_one(t.raw(), i, bits(t.dtype()), is_signed_integer(t.dtype()))));
      }
      return;
    case DType::undefined:
    case DType::string:
      break;
  }
  throw Error(ErrorCode::unsupported,
              fmt::format("a {} tensor has no numbers", to_string(t.dtype())));
}

}  // namespace

size_t packed_bytes(DType dtype, int64_t elements) {
  const auto n = static_cast<uint64_t>(elements);
  const auto b = static_cast<uint64_t>(bits(dtype));
  if (b >= 8) {
    if (n > (uint64_t{1} << 62) / (b / 8)) {
      throw Error(ErrorCode::corrupt_data,
                  fmt::format("{} elements of {} are too many", elements, to_string(dtype)));
    }
    return n * (b / 8);
  }
  return n / 8 * b + (n % 8 * b + 7) / 8;  // n * b may not fit 64 bits
}

Tensor::Tensor(DType dtype, Dims dims)
    : dtype_(dtype), dims_(std::move(dims)), elements_(num_elements(dims_)), writable_(true) {
  auto storage = allocate(packed_bytes(dtype_, elements_));
  data_ = storage.get();
  owner_ = std::move(storage);
}

Tensor Tensor::view(std::shared_ptr<const void> owner, const void* data, size_t bytes, DType dtype,
                    Dims dims) {
  Tensor t;
  t.dtype_ = dtype;
  t.dims_ = std::move(dims);
  t.elements_ = num_elements(t.dims_);
  if (packed_bytes(dtype, t.elements_) != bytes) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{} needs {} bytes but has {}", t.describe(),
                                                     packed_bytes(dtype, t.elements_), bytes));
  }
  t.owner_ = std::move(owner);
  t.data_ = const_cast<std::byte*>(static_cast<const std::byte*>(data));
  return t;
}

Tensor Tensor::view_or_copy(std::shared_ptr<const void> owner, const void* data, size_t bytes,
                            DType dtype, Dims dims) {
  Tensor t = view(std::move(owner), data, bytes, dtype, std::move(dims));
  const auto element = static_cast<uintptr_t>(std::max(narrow::bits(dtype) / 8, 1));
  return reinterpret_cast<uintptr_t>(data) % element == 0 ? t : t.clone();
}

std::byte* Tensor::mutable_raw() {
  if (!writable_) throw Error(ErrorCode::internal, "write to a borrowed tensor " + describe());
  return data_;
}

Tensor Tensor::reshaped(Dims dims) const {
  if (num_elements(dims) != elements_) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} does not reshape to {}", describe(), narrow::to_string(dims)));
  }
  Tensor t = *this;
  t.dims_ = std::move(dims);
  return t;
}

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor t(dtype_, dims_);
  if (bytes() > 0) std::memcpy(t.mutable_raw(), data_, bytes());
  return t;
}

std::vector<float> Tensor::to_floats() const {
  std::vector<float> out;
  out.reserve(static_cast<size_t>(elements_));
  append_as(out, *this);
  return out;
}

std::vector<int64_t> Tensor::to_ints() const {
  if (!is_integer(dtype_) && dtype_ != DType::boolean) {
    throw Error(ErrorCode::invalid_argument, "expected integers, got " + describe());
  }
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(elements_));
  append_as(out, *this);
  return out;
}

Tensor Tensor::from_ints(std::span<const int64_t> values, DType dtype, Dims dims) {
  Tensor t(dtype, std::move(dims));
  if (static_cast<size_t>(t.elements_) != values.size()) {
    throw Error(ErrorCode::internal, "value count does not match " + t.describe());
  }
  const int width = narrow::bits(dtype);
  const bool wide = width == 64;
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t v = values[i];
    if (!wide && dtype != DType::boolean && (v < integer_min(dtype) || v > integer_max(dtype))) {
      throw Error(ErrorCode::numeric_failure,
                  fmt::format("{} does not fit {}", v, narrow::to_string(dtype)));
    }
    if (width < 8) {
      const size_t bit = i * static_cast<size_t>(width);
      const auto code = static_cast<unsigned>(v) & ((1u << width) - 1);
      t.data_[bit / 8] |= static_cast<std::byte>(code << (bit % 8));
    } else {
      // Little-endian machines only (see core/platform): the low bytes are the narrower integer.
      const int64_t stored = dtype == DType::boolean ? (v != 0) : v;
      std::memcpy(t.data_ + i * static_cast<size_t>(width / 8), &stored,
                  static_cast<size_t>(width / 8));
    }
  }
  return t;
}

Tensor Tensor::from_floats(std::span<const float> values, DType dtype, Dims dims) {
  Tensor t(dtype, std::move(dims));
  if (static_cast<size_t>(t.elements_) != values.size()) {
    throw Error(ErrorCode::internal, "value count does not match " + t.describe());
  }
  for (size_t i = 0; i < values.size(); ++i) {
    switch (dtype) {
      case DType::float32:
        t.mutable_data<float>()[i] = values[i];
        break;
      case DType::float64:
        t.mutable_data<double>()[i] = values[i];
        break;
      case DType::float16:
        t.mutable_data<Half>()[i] = to_half(values[i]);
        break;
      case DType::bfloat16:
        t.mutable_data<BFloat16>()[i] = to_bfloat16(values[i]);
        break;
      default:
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("{} is not a floating type", narrow::to_string(dtype)));
    }
  }
  return t;
}

std::string Tensor::describe() const {
  return std::string(narrow::to_string(dtype_)) + narrow::to_string(dims_);
}

void Tensor::require_dtype(DType wanted) const {
  if (dtype_ != wanted) {
    throw Error(ErrorCode::internal,
                fmt::format("{} used as {}", describe(), narrow::to_string(wanted)));
  }
}

bool identical(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.dims() == b.dims() &&
         (a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

}  // namespace narrow
