// SPDX-License-Identifier: Apache-2.0
// JPEG and PNG pictures, and what is done with decoded ones.
#include <cstdint>
#include <cstring>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/data/image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  try {
    const narrow::Image image = narrow::decode_image(bytes, "fuzz");
    const auto expected = static_cast<size_t>(image.width * image.height * image.channels);
    if (image.pixels.size() != expected) __builtin_trap();
    (void)narrow::letterbox(narrow::to_rgb(image), {16, 12}, 0);
    (void)narrow::resize(narrow::to_gray(image), {9, 23});
  } catch (const narrow::Error&) {
  }
  return 0;
}
