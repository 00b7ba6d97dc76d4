// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "narrow/core/error.h"
#include "narrow/formats/safetensors/dtypes.h"
#include "narrow/formats/safetensors/safetensors.h"

namespace narrow {
namespace {

constexpr size_t kAlignment = 8;  // of the first tensor's bytes: the widest element

std::string quoted(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorCode::invalid_argument, "a name or metadata text is not UTF-8");
  }
}

std::string header_of(const std::vector<SafetensorsWriter::Item>& items,
                      const std::map<std::string, std::string>& metadata) {
  std::string out = "{";
  if (!metadata.empty()) {
    out += "\"__metadata__\":{";
    const char* comma = "";
    for (const auto& [key, value] : metadata) {
      out += fmt::format("{}{}:{}", comma, quoted(key), quoted(value));
      comma = ",";
    }
    out += '}';
  }
  uint64_t at = 0;
  for (const auto& item : items) {
    const uint64_t end = at + packed_bytes(item.dtype, num_elements(item.dims));
    out +=
        fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                    out.size() > 1 ? "," : "", quoted(item.name),
                    safetensors::find_dtype(item.dtype)->name, fmt::join(item.dims, ","), at, end);
    at = end;
  }
  out += '}';
  out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  return out;
}

void check_items(const std::vector<SafetensorsWriter::Item>& items) {
  std::set<std::string_view> names;
  for (const auto& item : items) {
    if (item.name.empty() || item.name == "__metadata__" || !names.insert(item.name).second) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("a tensor may not be called '{}' here", item.name),
                  "names are not empty and stand once");
    }
    if (safetensors::find_dtype(item.dtype) == nullptr) {
      throw Error(
          ErrorCode::unsupported,
          fmt::format("tensor '{}': safetensors has no {}", item.name, to_string(item.dtype)),
          "store packed codes as uint8");
    }
  }
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<Item> items,
                                     const std::map<std::string, std::string>& metadata)
    : items_(std::move(items)), file_(path) {
  check_items(items_);
  std::stable_sort(items_.begin(), items_.end(),
                   [](const Item& a, const Item& b) { return bits(a.dtype) > bits(b.dtype); });
  for (const Item& item : items_) remaining_ += packed_bytes(item.dtype, num_elements(item.dims));
  const std::string header = header_of(items_, metadata);
  const uint64_t length = header.size();
  file_.write(&length, sizeof(length));
  file_.write(header);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (bytes.size() > remaining_) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} bytes for tensors that lack {}", bytes.size(), remaining_));
  }
  remaining_ -= bytes.size();
  file_.write(bytes.data(), bytes.size());
}

void SafetensorsWriter::commit() {
  if (remaining_ > 0) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} bytes are missing", remaining_));
  }
  file_.commit();
}

void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsWriter::Item> items;
  for (const auto& [name, t] : tensors) items.push_back({name, t.dtype(), t.dims()});
  SafetensorsWriter writer(path, std::move(items), metadata);
  for (const auto& item : writer.items()) writer.write(tensors.at(item.name));
  writer.commit();
}

}  // namespace narrow
