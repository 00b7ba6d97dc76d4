// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "narrow/core/error.h"
#include "narrow/formats/safetensors/dtypes.h"
#include "narrow/formats/safetensors/header.h"
#include "narrow/formats/safetensors/safetensors.h"

namespace narrow {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

[[noreturn]] void corrupt(const std::string& what) {
  throw Error(ErrorCode::corrupt_data, what, "fetch the file again");
}

std::string_view header_text(std::span<const std::byte> bytes) {
  if (bytes.size() < kLengthBytes) corrupt(fmt::format("only {} bytes", bytes.size()));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > kMaxHeaderBytes) {
    corrupt(fmt::format("a header of {} bytes is more than {}", length, kMaxHeaderBytes));
  }
  if (length > bytes.size() - kLengthBytes) {
    corrupt(fmt::format("a header of {} bytes in a file of {}", length, bytes.size()));
  }
  return {reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length};
}

/// The entry of an item, its size checked against its shape.
SafetensorsEntry entry_of(const safetensors::HeaderItem& item, std::span<const std::byte> data) {
  const auto fail = [&](const std::string& what) {
    corrupt(fmt::format("tensor '{}' {}", item.name, what));
  };
  if (item.begin > item.end || item.end > data.size()) {
    fail(fmt::format("lies at bytes {} to {} of {}", item.begin, item.end, data.size()));
  }
  const uint64_t size = item.end - item.begin;
  const safetensors::DTypeRow* row = safetensors::find_dtype(item.dtype);
  int64_t elements = 0;
  try {
    elements = num_elements(item.dims);
  } catch (const Error& e) {
    fail("is refused: " + e.message());
  }
  if (row != nullptr) {
    uint64_t bits = 0;
    const bool overflow = __builtin_mul_overflow(static_cast<uint64_t>(elements),
                                                 static_cast<uint64_t>(row->bits), &bits);
    if (overflow || bits % 8 != 0 || bits / 8 != size) {
      fail(fmt::format("has {} bytes, not those of {}{}", size, item.dtype, to_string(item.dims)));
    }
  }
  SafetensorsEntry e;
  e.name = item.name;
  e.dtype = row != nullptr ? row->dtype : DType::undefined;
  e.dtype_name = item.dtype;
  e.dims = item.dims;
  e.bytes = data.subspan(item.begin, size);
  return e;
}

/// Sorted tensors share out the bytes without overlap or gap.
void require_complete(const std::vector<safetensors::HeaderItem>& items, uint64_t data_bytes) {
  uint64_t at = 0;
  for (const safetensors::HeaderItem& item : items) {
    if (item.begin != at) {
      corrupt(fmt::format("tensor '{}' starts at byte {}, but the one before it ends at {}",
                          item.name, item.begin, at));
    }
    at = item.end;
  }
  if (at != data_bytes) corrupt(fmt::format("{} bytes behind the last tensor", data_bytes - at));
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse(file, file->bytes(), path.string());
}

SafetensorsFile SafetensorsFile::parse(std::shared_ptr<const void> owner,
                                       std::span<const std::byte> bytes, const std::string& name) {
  SafetensorsFile f;
  f.name_ = name;
  f.owner_ = std::move(owner);
  try {
    const std::string_view text = header_text(bytes);
    const auto data = bytes.subspan(kLengthBytes + text.size());
    safetensors::Header header = safetensors::parse_header(text);
    f.metadata_ = std::move(header.metadata);
    auto entries = std::make_shared<std::vector<SafetensorsEntry>>();
    entries->reserve(header.items.size());
    std::stable_sort(header.items.begin(), header.items.end(), [](const auto& a, const auto& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    for (const auto& item : header.items) entries->push_back(entry_of(item, data));
    require_complete(header.items, data.size());
    for (size_t i = 0; i < entries->size(); ++i) {
      if (!f.index_.emplace((*entries)[i].name, i).second) {
        corrupt(fmt::format("tensor '{}' stands there twice", (*entries)[i].name));
      }
    }
    f.entries_ = std::move(entries);
  } catch (Error& e) {
    e.add_context(name);
    throw;
  }
  return f;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &(*entries_)[it->second];
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry* e = find(name);
  if (e == nullptr) {
    throw Error(ErrorCode::not_found, fmt::format("{}: no tensor '{}'", name_, name));
  }
  if (e->dtype == DType::undefined) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: tensor '{}' has dtype {}", name_, name, e->dtype_name),
                "convert the checkpoint to BF16, F16 or F32");
  }
  return Tensor::view_or_copy(owner_, e->bytes.data(), e->bytes.size(), e->dtype, e->dims);
}

}  // namespace narrow
