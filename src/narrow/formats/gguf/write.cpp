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
void put(AtomicFile& file, T x) {
  file.write(&x, sizeof(x));
}

void put_text(AtomicFile& file, std::string_view text) {
  put<uint64_t>(file, text.size());
  file.write(text);
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

uint64_t gguf_tensor_bytes(const GgufWriter::Item& item) {
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

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata,
                       std::vector<Item> items)
    : items_(std::move(items)), file_(path), alignment_(checked_alignment(metadata)) {
  constexpr uint32_t kVersion = 3;
  std::set<std::string_view> names;
  for (const Item& item : items_) {
    sizes_.push_back(gguf_tensor_bytes(item));
    if (!names.insert(item.name).second) {
      refuse(fmt::format("tensor '{}' stands there twice", item.name));
    }
  }
  file_.write("GGUF");
  put(file_, kVersion);
  put<uint64_t>(file_, items_.size());
  put<uint64_t>(file_, metadata.size());
  for (const auto& [key, value] : metadata) {
    put_text(file_, key);
    put(file_, value.kind());
    file_.write(value.payload().data(), value.payload().size());
  }
  uint64_t offset = 0;
  for (size_t i = 0; i < items_.size(); ++i) {
    const Item& item = items_[i];
    put_text(file_, item.name);
    put(file_, static_cast<uint32_t>(item.dims.size()));
    for (size_t d = item.dims.size(); d-- > 0;) put<int64_t>(file_, item.dims[d]);
    put(file_, item.type->number);
    put(file_, offset);
    if (__builtin_add_overflow(offset, sizes_[i], &offset) || offset > ~uint64_t{0} / 2) {
      refuse("the tensors are too large");
    }
    offset = (offset + alignment_ - 1) / alignment_ * alignment_;
  }
  pad();
  finish_tensors();
}

void GgufWriter::pad() {
  uint64_t missing = (alignment_ - file_.position() % alignment_) % alignment_;
  while (missing > 0) {
    const uint64_t piece = std::min<uint64_t>(missing, sizeof(kZeros));
    file_.write(kZeros, piece);
    missing -= piece;
  }
}

/// Goes on to the next tensor that wants bytes.
void GgufWriter::finish_tensors() {
  while (current_ < items_.size() && written_ == sizes_[current_]) {
    pad();
    written_ = 0;
    ++current_;
  }
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (current_ == items_.size()) refuse(fmt::format("{} bytes too many", bytes.size()));
    const size_t piece = std::min<uint64_t>(bytes.size(), sizes_[current_] - written_);
    file_.write(bytes.data(), piece);
    bytes = bytes.subspan(piece);
    written_ += piece;
    finish_tensors();
  }
}

void GgufWriter::commit() {
  if (current_ < items_.size()) {
    refuse(fmt::format("tensor '{}' lacks {} bytes", items_[current_].name,
                       sizes_[current_] - written_));
  }
  file_.commit();
}

}  // namespace narrow
