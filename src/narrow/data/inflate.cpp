// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/inflate.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <limits>

#include "narrow/core/error.h"

namespace narrow {
namespace {

[[noreturn]] void corrupt(const std::string& what, std::string_view why) {
  throw Error(ErrorCode::corrupt_data, fmt::format("{}: {}", what, why),
              "the file is damaged; fetch or write it again");
}

/// A stream over bytes of any length; zlib counts in 32 bits.
class Inflater {
 public:
  Inflater(std::span<const std::byte> in, Wrapper wrapper) : in_(in) {
    const int window = wrapper == Wrapper::gzip ? 16 + MAX_WBITS : -MAX_WBITS;
    if (inflateInit2(&stream_, window) != Z_OK) {
      throw Error(ErrorCode::resource_exhausted, "no memory to decompress");
    }
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  /// Fills `out` as far as the stream goes; returns the bytes written.
  size_t read(std::span<std::byte> out, const std::string& what) {
    size_t done = 0;
    while (done < out.size() && !ended_) {
      refill();
      const auto room = static_cast<uInt>(std::min<size_t>(out.size() - done, kPiece));
      stream_.next_out = reinterpret_cast<Bytef*>(out.data() + done);
      stream_.avail_out = room;
      const int result = inflate(&stream_, Z_NO_FLUSH);
      done += room - stream_.avail_out;
      if (result == Z_STREAM_END) {
        ended_ = true;
      } else if (result == Z_BUF_ERROR && stream_.avail_in == 0 && in_.empty()) {
        corrupt(what, "the compressed data end too early");
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        corrupt(what, stream_.msg != nullptr ? stream_.msg : "the compressed data are damaged");
      }
    }
    return done;
  }

  bool ended() const { return ended_; }

 private:
  static constexpr size_t kPiece = size_t{1} << 30;

  void refill() {
    if (stream_.avail_in > 0 || in_.empty()) return;
    const size_t n = std::min(in_.size(), kPiece);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in_.data()));
    stream_.avail_in = static_cast<uInt>(n);
    in_ = in_.subspan(n);
  }

  std::span<const std::byte> in_;
  z_stream stream_{};
  bool ended_ = false;
};

}  // namespace

uint64_t largest_inflated(uint64_t compressed) {
  constexpr uint64_t kBestRatio = 1032;  // 258 bytes from two bits: zlib's stated limit
  if (compressed > std::numeric_limits<uint64_t>::max() / kBestRatio - 1) {
    return std::numeric_limits<uint64_t>::max();
  }
  return compressed * kBestRatio;
}

std::vector<std::byte> inflate_exactly(std::span<const std::byte> compressed, uint64_t size,
                                       Wrapper wrapper, const std::string& what) {
  if (size > largest_inflated(compressed.size())) {
    corrupt(what, fmt::format("claims {} bytes, which {} compressed bytes cannot hold", size,
                              compressed.size()));
  }
  std::vector<std::byte> out(size);
  Inflater inflater(compressed, wrapper);
  if (inflater.read(out, what) < size) corrupt(what, "the data are shorter than claimed");
  std::byte beyond[1];
  if (!inflater.ended() && inflater.read(beyond, what) > 0) {
    corrupt(what, "the data are longer than claimed");
  }
  return out;
}

std::vector<std::byte> inflate_prefix(std::span<const std::byte> compressed, uint64_t size,
                                      Wrapper wrapper, const std::string& what) {
  std::vector<std::byte> out(size);
  Inflater inflater(compressed, wrapper);
  out.resize(inflater.read(out, what));
  return out;
}

bool is_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

uint32_t crc32_of(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace narrow
