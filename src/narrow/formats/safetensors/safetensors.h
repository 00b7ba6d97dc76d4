// SPDX-License-Identifier: Apache-2.0
// The safetensors format: an 8-byte little-endian length, that many bytes of JSON, then the
// tensors' bytes. The JSON is one object: a tensor's name -> {"dtype", "shape", "data_offsets":
// [begin, end)} with offsets counted from the end of the JSON, and optionally "__metadata__": texts
// by name.
//
//   const SafetensorsFile file = SafetensorsFile::open("model.safetensors");
//   Tensor w = file.tensor("lm_head.weight");      // points into the mapped file
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "narrow/core/file.h"
#include "narrow/core/tensor.h"

namespace narrow {

struct SafetensorsEntry {
  std::string name;
  std::string dtype_name;          // as in the file: "BF16"
  DType dtype = DType::undefined;  // undefined when no Tensor can hold it ("F8_E4M3")
  Dims dims;
  std::span<const std::byte> bytes;  // of the mapped file
};

/// One file. Copies share the mapping.
class SafetensorsFile {
 public:
  /// Everything is checked before it returns: sizes, offsets inside of the file without overlap or
  /// gaps, dtypes against shapes, names once each. Throws corrupt_data naming the tensor,
  /// not_found, io_error.
  static SafetensorsFile open(const std::filesystem::path& path);
  /// From memory that `owner` keeps alive; `name` is for errors.
  static SafetensorsFile parse(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                               const std::string& name);

  /// In the order of their bytes.
  const std::vector<SafetensorsEntry>& entries() const { return *entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Null when there is none of this name.
  const SafetensorsEntry* find(std::string_view name) const;
  /// A view of the file, or a copy where the file does not align it. Throws not_found, or
  /// unsupported for a dtype that narrow does not hold.
  Tensor tensor(std::string_view name) const;

 private:
  std::string name_;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<const std::vector<SafetensorsEntry>> entries_;
  std::unordered_map<std::string_view, size_t> index_;  // into entries_
  std::map<std::string, std::string> metadata_;
};

/// A model's tensors, wherever its files keep them: one .safetensors file, or a folder with
/// model.safetensors, with model.safetensors.index.json and its shards, or with a single
/// .safetensors file.
class SafetensorsCheckpoint {
 public:
  /// Throws not_found naming a shard that is missing, corrupt_data naming a tensor that its shard
  /// does not have.
  static SafetensorsCheckpoint open(const std::filesystem::path& file_or_folder);

  /// Sorted.
  std::vector<std::string> names() const;
  const SafetensorsEntry* find(std::string_view name) const;
  Tensor tensor(std::string_view name) const;
  /// Bytes of all tensors.
  uint64_t bytes() const;
  const std::vector<std::filesystem::path>& files() const { return paths_; }

 private:
  void read_index(const std::filesystem::path& folder, const std::filesystem::path& index);
  void add_single(const std::filesystem::path& path);

  std::vector<std::filesystem::path> paths_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> where_;  // name -> file
};

/// Writes a file whose tensors never have to be in memory together:
///
///   SafetensorsWriter writer(path, {{"w", DType::float16, {2, 3}}, {"b", DType::float32, {3}}});
///   for (const auto& item : writer.items()) writer.write(bytes_of(item.name));
///   writer.commit();
class SafetensorsWriter {
 public:
  struct Item {
    std::string name;
    DType dtype = DType::undefined;
    Dims dims;
  };

  /// Throws invalid_argument for a name that is used twice, empty, "__metadata__" or not UTF-8,
  /// unsupported for a dtype that the format does not have.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<Item> items,
                    const std::map<std::string, std::string>& metadata = {});

  /// The order in which the bytes go: wide element types first, so that all are aligned.
  const std::vector<Item>& items() const { return items_; }
  /// The next bytes; in pieces of any size.
  void write(std::span<const std::byte> bytes);
  void write(const Tensor& tensor) { write({tensor.raw(), tensor.bytes()}); }
  /// Throws invalid_argument if bytes are missing; the file appears under its name only here.
  void commit();

 private:
  std::vector<Item> items_;
  AtomicFile file_;
  uint64_t remaining_ = 0;
};

/// All at once.
void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace narrow
