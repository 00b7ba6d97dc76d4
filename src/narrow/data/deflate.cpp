// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/deflate.h"

#include <zlib.h>

#include <algorithm>
#include <vector>

#include "narrow/core/error.h"

namespace narrow {

uint64_t deflated_bytes(std::span<const std::byte> bytes) {
  constexpr size_t kPiece = size_t{1} << 20;
  z_stream stream{};
  if (deflateInit(&stream, Z_DEFAULT_COMPRESSION) != Z_OK) {
    throw Error(ErrorCode::resource_exhausted, "no memory to compress");
  }
  std::vector<Bytef> out(kPiece);
  uint64_t total = 0;
  int result = Z_OK;
  while (result == Z_OK) {
    const size_t count = std::min(bytes.size(), kPiece);
    std::vector<Bytef> in(count);  // zlib reads through a pointer that is not const
    std::ranges::transform(bytes.first(count), in.begin(),
                           [](std::byte b) { return std::to_integer<Bytef>(b); });
    bytes = bytes.subspan(count);
    stream.next_in = in.data();
    stream.avail_in = static_cast<uInt>(count);
    do {
      stream.next_out = out.data();
      stream.avail_out = static_cast<uInt>(out.size());
      result = deflate(&stream, bytes.empty() ? Z_FINISH : Z_NO_FLUSH);
      total += out.size() - stream.avail_out;
    } while (stream.avail_out == 0);
  }
  deflateEnd(&stream);
  return total;
}

}  // namespace narrow
