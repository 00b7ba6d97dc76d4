// SPDX-License-Identifier: Apache-2.0
// Safetensors files: what is accepted can be read.
#include <cstdint>
#include <cstring>
#include <memory>

#include "narrow/core/error.h"
#include "narrow/formats/safetensors/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy that the tensors may point into; of exactly this size, for the sanitizer.
  const std::shared_ptr<std::byte[]> owner(new std::byte[size]);
  if (size > 0) std::memcpy(owner.get(), data, size);
  const std::span<const std::byte> bytes(owner.get(), size);
  try {
    const auto file = narrow::SafetensorsFile::parse(owner, bytes, "fuzz");
    for (const narrow::SafetensorsEntry& e : file.entries()) {
      if (file.find(e.name) != &e) __builtin_trap();
      if (e.dtype != narrow::DType::undefined) (void)file.tensor(e.name).to_floats();
    }
  } catch (const narrow::Error& e) {
    if (e.code() == narrow::ErrorCode::internal) __builtin_trap();
  }
  return 0;
}
