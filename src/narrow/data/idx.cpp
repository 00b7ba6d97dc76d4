// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/idx.h"

#include <fmt/format.h>

#include <cstring>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/data/bytes.h"
#include "narrow/data/inflate.h"

namespace narrow {
namespace {

constexpr size_t kMagicBytes = 4;

[[noreturn]] void corrupt(const std::string& what, std::string_view why) {
  throw Error(ErrorCode::corrupt_data, fmt::format("{}: {}", what, why));
}

DType element_type(std::byte code, const std::string& what) {
  switch (static_cast<uint8_t>(code)) {
    case 0x08:
      return DType::uint8;
    case 0x09:
      return DType::int8;
    case 0x0B:
      return DType::int16;
    case 0x0C:
      return DType::int32;
    case 0x0D:
      return DType::float32;
    case 0x0E:
      return DType::float64;
    default:
      corrupt(what, fmt::format("idx element type {:#04x} is not known", static_cast<int>(code)));
  }
}

struct Header {
  DType dtype = DType::undefined;
  Dims dims;
  size_t bytes = 0;  // of the header itself
};

/// `prefix`: the first bytes, as many of the longest header as there are.
Header parse_header(std::span<const std::byte> prefix, const std::string& what) {
  if (prefix.size() < kMagicBytes) corrupt(what, "too short for an idx header");
  if (prefix[0] != std::byte{0} || prefix[1] != std::byte{0}) {
    corrupt(what, "not an idx file: it does not begin with two zero bytes");
  }
  Header header;
  header.dtype = element_type(prefix[2], what);
  const auto rank = static_cast<size_t>(prefix[3]);
  header.bytes = kMagicBytes + 4 * rank;
  if (rank == 0) corrupt(what, "idx rank 0");
  if (prefix.size() < header.bytes) corrupt(what, "the idx header is cut off");
  for (size_t i = 0; i < rank; ++i) {
    header.dims.push_back(load_big_endian<uint32_t>(prefix.data() + kMagicBytes + 4 * i));
  }
  return header;
}

size_t payload_bytes(const Header& header, uint64_t limit, const std::string& what) {
  int64_t elements = 0;
  try {
    elements = num_elements(header.dims);
  } catch (Error& e) {
    e.add_context(what);
    throw;
  }
  const auto width = static_cast<uint64_t>(bits(header.dtype) / 8);
  if (static_cast<uint64_t>(elements) > limit / width) {
    corrupt(what, fmt::format("claims the shape {} of {}, but holds less", to_string(header.dims),
                              to_string(header.dtype)));
  }
  return static_cast<size_t>(elements) * width;
}

}  // namespace

Tensor parse_idx(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                 const std::string& what) {
  constexpr size_t kLongestHeader = kMagicBytes + 4 * 255;
  if (is_gzip(bytes)) {
    const Header header =
        parse_header(inflate_prefix(bytes, kLongestHeader, Wrapper::gzip, what), what);
    const uint64_t limit = largest_inflated(bytes.size());
    const size_t total = header.bytes + payload_bytes(header, limit, what);
    const auto unpacked = std::make_shared<const std::vector<std::byte>>(
        inflate_exactly(bytes, total, Wrapper::gzip, what));
    bytes = *unpacked;
    owner = unpacked;
  }
  const Header header = parse_header(bytes, what);
  const size_t payload = payload_bytes(header, bytes.size() - header.bytes, what);
  const std::span<const std::byte> values = bytes.subspan(header.bytes);
  if (values.size() != payload) {
    corrupt(what, fmt::format("{} bytes follow the {} values that it claims",
                              values.size() - payload, to_string(header.dims)));
  }
  const size_t width = static_cast<size_t>(bits(header.dtype)) / 8;
  if (width == 1 && owner) {
    return Tensor::view(std::move(owner), values.data(), payload, header.dtype, header.dims);
  }
  Tensor out(header.dtype, header.dims);
  if (payload == 0) return out;
  std::memcpy(out.mutable_raw(), values.data(), payload);
  swap_from_big_endian({out.mutable_raw(), payload}, width);
  return out;
}

Tensor read_idx(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_idx(file, file->bytes(), path.string());
}

}  // namespace narrow
