// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <set>
#include <string>

#include "narrow/core/error.h"
#include "narrow/formats/gguf/gguf.h"

namespace narrow {
namespace {

constexpr uint64_t kDefaultAlignment = 32;
constexpr int64_t kMaxAlignment = int64_t{1} << 20;
constexpr size_t kMaxKey = 65535;
constexpr size_t kMaxTensorName = 63;  // what llama.cpp can load
constexpr size_t kMaxRank = 4;
constexpr char kZeros[4096] = {};

[[noreturn]] void refuse(const std::string& what, const std::string& hint = {}) {
  throw Error(ErrorCode::invalid_argument, what, hint);
}

template <class T>
void put(std::string& out, T x) {
  out.append(reinterpret_cast<const char*>(&x), sizeof(x));
}

void put_text(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out.append(text);
}

uint64_t padded(uint64_t size, uint64_t alignment) {
  return (size + alignment - 1) / alignment * alignment;
}

uint64_t checked_alignment(const GgufMetadata& metadata) {
  std::set<std::string_view> keys;
  uint64_t alignment = kDefaultAlignment;
  for (const auto& [key, value] : metadata) {
    if (key.empty() || key.size() > kMaxKey || !keys.insert(key).second) {
      refuse(fmt::format("metadata may not be called '{}' here", key),
             "keys are not empty and stand once");
    }
    if (value.payload().empty()) refuse(fmt::format("metadata '{}' has no value", key));
    if (key != "general.alignment") continue;
    const int64_t a = value.as_int();
    if (value.kind() != GgufKind::u32 || a < 8 || a > kMaxAlignment ||
        !std::has_single_bit(static_cast<uint64_t>(a))) {
      refuse(fmt::format("general.alignment is {}", a), "it is a u32 power of two from 8");
    }
    alignment = static_cast<uint64_t>(a);
  }
  return alignment;
}

}  // namespace

uint64_t gguf_tensor_bytes(const GgufItem& item) {
  if (item.name.empty() || item.name.size() > kMaxTensorName) {
    refuse(fmt::format("a tensor may not be called '{}' here", item.name),
           fmt::format("names have 1 to {} bytes", kMaxTensorName));
  }
  if (item.type == nullptr) refuse(fmt::format("tensor '{}' has no type", item.name));
  if (item.dims.size() > kMaxRank) {
    refuse(fmt::format("tensor '{}' has {} dimensions, more than {}", item.name, item.dims.size(),
                       kMaxRank));
  }
  const int64_t elements = num_elements(item.dims);
  const int64_t columns = item.dims.empty() ? 1 : item.dims.back();
  if (columns % item.type->block_values != 0) {
    refuse(fmt::format("tensor '{}' has rows of {}, not whole blocks of {} ({})", item.name,
                       columns, item.type->block_values, item.type->name),
           "store it as Q8_0 (blocks of 32) or F16");
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(elements / item.type->block_values),
                             static_cast<uint64_t>(item.type->block_bytes), &bytes)) {
    refuse(fmt::format("tensor '{}' is too large", item.name));
  }
  return bytes;
}

GgufLayout gguf_layout(const GgufMetadata& metadata, std::vector<GgufItem> items) {
  constexpr uint32_t kVersion = 3;
  GgufLayout layout;
  layout.alignment = checked_alignment(metadata);
  layout.items = std::move(items);
  std::set<std::string_view> names;
  std::string& out = layout.header;
  out = "GGUF";
  put(out, kVersion);
  put<uint64_t>(out, layout.items.size());
  put<uint64_t>(out, metadata.size());
  for (const auto& [key, value] : metadata) {
    put_text(out, key);
    put(out, value.kind());
    out.append(reinterpret_cast<const char*>(value.payload().data()), value.payload().size());
  }
  uint64_t offset = 0;
  for (const GgufItem& item : layout.items) {
    const uint64_t size = gguf_tensor_bytes(item);
    if (!names.insert(item.name).second) {
      refuse(fmt::format("tensor '{}' stands there twice", item.name));
    }
    put_text(out, item.name);
    put(out, static_cast<uint32_t>(item.dims.size()));
    for (size_t d = item.dims.size(); d-- > 0;) put<int64_t>(out, item.dims[d]);
    put(out, item.type->number);
    put(out, offset);
    layout.sizes.push_back(size);
    layout.positions.push_back(offset);
    if (__builtin_add_overflow(offset, size, &offset) || offset > ~uint64_t{0} / 2) {
      refuse("the tensors are too large");
    }
    offset = padded(offset, layout.alignment);
  }
  out.resize(padded(out.size(), layout.alignment), '\0');
  for (uint64_t& position : layout.positions) position += out.size();
  return layout;
}

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata,
                       std::vector<Item> items)
    : layout_(gguf_layout(metadata, std::move(items))), file_(path) {
  file_.write(layout_.header);
  finish_tensors();
}

GgufWriter::GgufWriter(const std::filesystem::path& path, GgufLayout layout,
                       const std::filesystem::path& partial, size_t finished)
    : layout_(std::move(layout)),
      file_(
          path, partial,
          finished == 0 ? 0 : layout_.positions.at(finished - 1) + layout_.sizes.at(finished - 1)),
      current_(finished) {
  if (finished == 0) file_.write(layout_.header);
  pad();
  finish_tensors();
}

void GgufWriter::pad() {
  const uint64_t alignment = layout_.alignment;
  uint64_t missing = (alignment - file_.position() % alignment) % alignment;
  while (missing > 0) {
    const uint64_t piece = std::min<uint64_t>(missing, sizeof(kZeros));
    file_.write(kZeros, piece);
    missing -= piece;
  }
}

/// Goes on to the next tensor that wants bytes.
void GgufWriter::finish_tensors() {
  while (current_ < layout_.items.size() && written_ == layout_.sizes[current_]) {
    pad();
    written_ = 0;
    ++current_;
  }
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (current_ == layout_.items.size()) refuse(fmt::format("{} bytes too many", bytes.size()));
    const size_t piece = std::min<uint64_t>(bytes.size(), layout_.sizes[current_] - written_);
    file_.write(bytes.data(), piece);
    bytes = bytes.subspan(piece);
    written_ += piece;
    finish_tensors();
  }
}

void GgufWriter::commit() {
  if (current_ < layout_.items.size()) {
    refuse(fmt::format("tensor '{}' lacks {} bytes", layout_.items[current_].name,
                       layout_.sizes[current_] - written_));
  }
  file_.commit();
}

}  // namespace narrow
