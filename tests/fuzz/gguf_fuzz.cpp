// SPDX-License-Identifier: Apache-2.0
// GGUF files and importance matrices: what is accepted can be listed, decoded and written again.
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "narrow/core/error.h"
#include "narrow/formats/gguf/gguf.h"
#include "narrow/formats/gguf/importance.h"

namespace {

constexpr size_t kLargest = size_t{1} << 16;  // of tensors decoded: keeps a run short

void look_at(const narrow::GgufValue& v) {
  using narrow::GgufKind;
  (void)v.describe();
  if (v.kind() != GgufKind::array) return;
  if (v.element_kind() == GgufKind::array) {
    for (const narrow::GgufValue& element : v.as_arrays()) look_at(element);
  } else if (v.element_kind() == GgufKind::string) {
    (void)v.as_strings();
  } else {
    (void)v.as_floats();
  }
}

void write_back(const narrow::GgufFile& file) {
  static const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("narrow_gguf_fuzz." + std::to_string(::getpid()));
  std::vector<narrow::GgufWriter::Item> items;
  for (const auto& t : file.tensors()) items.push_back({t.name, t.type, t.dims});
  narrow::GgufWriter writer(path, file.metadata(), items);
  for (const auto& t : file.tensors()) writer.write(t.bytes);
  writer.commit();
  const narrow::GgufFile again = narrow::GgufFile::open(path);
  std::filesystem::remove(path);
  if (again.metadata() != file.metadata()) __builtin_trap();
  if (again.tensors().size() != file.tensors().size()) __builtin_trap();
}

void read_model(const std::shared_ptr<std::byte[]>& owner, std::span<const std::byte> bytes) {
  const narrow::GgufFile file = narrow::GgufFile::parse(owner, bytes, "fuzz");
  for (const auto& [key, value] : file.metadata()) look_at(value);
  for (const auto& t : file.tensors()) {
    if (t.type->codec && t.bytes.size() < kLargest) (void)file.decoded(t.name);
    if (t.type->dtype != narrow::DType::undefined) (void)file.tensor(t.name);
  }
  write_back(file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy that the tensors may point into; of exactly this size, for the sanitizer.
  const std::shared_ptr<std::byte[]> owner(new std::byte[size]);
  if (size > 0) std::memcpy(owner.get(), data, size);
  const std::span<const std::byte> bytes(owner.get(), size);
  try {
    read_model(owner, bytes);
  } catch (const narrow::Error& e) {
    if (e.code() == narrow::ErrorCode::internal) __builtin_trap();
  }
  try {
    for (const auto& [name, e] : narrow::parse_importance(owner, bytes, "fuzz").entries) {
      for (size_t i = 0; i < e.experts(); ++i) (void)e.mean_squares(i);
    }
  } catch (const narrow::Error& e) {
    if (e.code() == narrow::ErrorCode::internal) __builtin_trap();
  }
  return 0;
}
