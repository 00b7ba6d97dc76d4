// SPDX-License-Identifier: Apache-2.0
// Archives of numpy arrays, and single arrays.
#include <cstdint>
#include <cstring>
#include <memory>

#include "narrow/core/error.h"
#include "narrow/data/npz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy that the arrays may point into; of exactly this size, for the sanitizer.
  const std::shared_ptr<std::byte[]> owner(new std::byte[size]);
  if (size > 0) std::memcpy(owner.get(), data, size);
  const std::span<const std::byte> bytes(owner.get(), size);
  constexpr size_t kLargest = size_t{1} << 22;  // of arrays looked at: keeps a run short
  try {
    for (const auto& [name, array] : narrow::parse_npz(owner, bytes, "fuzz")) {
      if (array.bytes() < kLargest) (void)array.to_floats();
    }
  } catch (const narrow::Error&) {
  }
  try {
    const narrow::Tensor array = narrow::parse_npy(owner, bytes, "fuzz");
    if (array.bytes() < kLargest) (void)array.to_floats();
  } catch (const narrow::Error&) {
  }
  return 0;
}
