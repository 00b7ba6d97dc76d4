// SPDX-License-Identifier: Apache-2.0
// idx files, plain and gzip; and the small text formats that come with data: label files and data
// specifications.
#include <cstdint>
#include <cstring>
#include <memory>

#include "narrow/core/error.h"
#include "narrow/data/dataset.h"
#include "narrow/data/idx.h"
#include "narrow/data/label_file.h"

namespace {

void read_specification(std::string_view text) {
  const narrow::DataSpec spec = narrow::parse_data_spec(text);
  const narrow::DataSpec again = narrow::parse_data_spec(spec.text());
  const bool equal =
      again.kind == spec.kind && again.path == spec.path && again.options == spec.options;
  if (!equal) __builtin_trap();  // what is printed must read back
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::shared_ptr<std::byte[]> owner(new std::byte[size]);
  if (size > 0) std::memcpy(owner.get(), data, size);
  const std::span<const std::byte> bytes(owner.get(), size);
  const std::string_view text(reinterpret_cast<const char*>(owner.get()), size);
  try {
    const narrow::Tensor array = narrow::parse_idx(owner, bytes, "fuzz");
    constexpr size_t kLargest = size_t{1} << 22;  // looked at: keeps a run short
    if (array.bytes() < kLargest) (void)array.to_floats();
  } catch (const narrow::Error&) {
  }
  try {
    (void)narrow::parse_label_file(text, "fuzz");
  } catch (const narrow::Error&) {
  }
  try {
    read_specification(text);
  } catch (const narrow::Error&) {
  }
  return 0;
}
