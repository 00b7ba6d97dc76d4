// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/charsmap.h"

#include <bit>
#include <cstring>

#include "narrow/core/error.h"

namespace narrow::llm {
namespace {
constexpr size_t kMaxReplacement = 256;  // NFKC's longest has 33 bytes
}

Charsmap::Charsmap(std::string_view blob) {
  uint32_t bytes = 0;
  if (blob.size() < 4) throw Error(ErrorCode::corrupt_data, "the character map is cut short");
  std::memcpy(&bytes, blob.data(), 4);
  if constexpr (std::endian::native == std::endian::big) bytes = __builtin_bswap32(bytes);
  if (bytes % 4 != 0 || bytes == 0 || bytes > blob.size() - 4) {
    throw Error(ErrorCode::corrupt_data, "the character map's trie does not fit into it");
  }
  units_.resize(bytes / 4);
  std::memcpy(units_.data(), blob.data() + 4, bytes);
  if constexpr (std::endian::native == std::endian::big) {
    for (uint32_t& u : units_) u = __builtin_bswap32(u);
  }
  texts_ = blob.substr(4 + bytes);
}

Charsmap::Match Charsmap::find(std::string_view text, bool first) const {
  // A unit: the label in bits 0..7 (bit 31 set in units that hold a value), bit 8: a value follows,
  // bits 10..: the offset to the children, times 256 where bit 9 is set.
  const auto offset_of = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  Match best;
  size_t at = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (at >= units_.size()) break;
    const uint32_t unit = units_[at];
    if ((unit & (1u << 31 | 0xFF)) != byte) break;
    at ^= offset_of(unit);
    if ((unit >> 8 & 1) == 0) continue;
    if (at >= units_.size()) break;
    const uint32_t start = units_[at] & 0x7FFFFFFF;
    if (start > texts_.size()) break;
    const size_t end = texts_.find('\0', start);
    best.replacement = std::string_view(texts_).substr(
        start, end == std::string::npos ? std::string_view::npos : end - start);
    if (best.replacement.size() > kMaxReplacement) {
      throw Error(ErrorCode::corrupt_data, "a replacement of the character map is too long");
    }
    best.length = i + 1;
    if (first) break;
  }
  return best;
}

}  // namespace narrow::llm
