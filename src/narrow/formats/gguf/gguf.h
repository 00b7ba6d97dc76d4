// SPDX-License-Identifier: Apache-2.0
// The GGUF format, versions 2 and 3, little-endian: "GGUF", u32 version, u64 tensor count, u64
// metadata count; metadata (key text, u32 kind, value); tensors (name text, u32 rank, u64 dims with
// the contiguous one first, u32 type, u64 offset); padding; the tensors' bytes, each at a multiple
// of the alignment (the key general.alignment, else 32). Texts stand behind their u64 length.
//
//   const GgufFile file = GgufFile::open("model.gguf");
//   const int64_t layers = file.metadata_at("llama.block_count").as_int();
//   for (const GgufTensor& t : file.tensors()) ...
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "narrow/core/file.h"
#include "narrow/core/tensor.h"
#include "narrow/formats/gguf/types.h"
#include "narrow/formats/gguf/value.h"

namespace narrow {

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

/// By the first bytes. Of a path that is no regular file, or cannot be read: false.
bool starts_as_gguf(std::span<const std::byte> bytes);
bool is_gguf_file(const std::filesystem::path& path);
/// The only .gguf file of a folder that is no Hugging Face model; else empty.
std::filesystem::path single_gguf_in(const std::filesystem::path& folder);

struct GgufTensor {
  std::string name;
  const GgufTensorType* type = nullptr;
  Dims dims;  // row-major: rows first, the contiguous dimension last
  std::span<const std::byte> bytes;

  /// As files and ggml count them: the contiguous dimension first.
  Dims ggml_dims() const { return {dims.rbegin(), dims.rend()}; }
  /// Length of a row, 1 for a scalar.
  int64_t columns() const { return dims.empty() ? 1 : dims.back(); }
};

/// One file. Copies share the mapping.
class GgufFile {
 public:
  /// Everything is checked before it returns. Throws corrupt_data naming key or tensor; unsupported
  /// for a big-endian file, another version, or tensor types that are not known, all listed.
  static GgufFile open(const std::filesystem::path& path);
  /// From memory that `owner` keeps alive; `name` is for errors.
  static GgufFile parse(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                        const std::string& name);

  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }

  /// In the file's order.
  const GgufMetadata& metadata() const { return *metadata_; }
  /// Null when there is none of this key.
  const GgufValue* find_metadata(std::string_view key) const;
  /// Throws not_found naming the key.
  const GgufValue& metadata_at(std::string_view key) const;

  /// In the file's order.
  const std::vector<GgufTensor>& tensors() const { return *tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const;
  /// Throws not_found.
  const GgufTensor& tensor_at(std::string_view name) const;
  /// A view of the file for types that a Tensor holds unchanged (F32, F16, BF16, I32, ...), a copy
  /// where it is not aligned; throws unsupported for the others.
  Tensor tensor(std::string_view name) const;
  /// Any tensor of a block codec as float32, in parallel by rows; throws unsupported for the
  /// others.
  Tensor decoded(std::string_view name) const;

 private:
  void parse_all(std::span<const std::byte> bytes);

  std::string name_;
  std::shared_ptr<const void> owner_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 0;
  std::shared_ptr<const GgufMetadata> metadata_;
  std::shared_ptr<const std::vector<GgufTensor>> tensors_;
  std::unordered_map<std::string_view, size_t> metadata_index_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

struct GgufItem {
  std::string name;
  const GgufTensorType* type = nullptr;
  Dims dims;  // row-major
};

/// Where the bytes of a file go.
struct GgufLayout {
  std::string header;               // everything in front of the first tensor
  std::vector<GgufItem> items;      // in the file's order
  std::vector<uint64_t> positions;  // of the items in the file
  std::vector<uint64_t> sizes;      // in bytes, without the padding behind
  uint64_t alignment = 0;
};
/// Metadata is kept in order; general.alignment in it (a power of two) is obeyed. Throws
/// invalid_argument for keys or names that are empty, used twice or too long for other readers,
/// more than 4 dimensions, rows that are not whole blocks.
GgufLayout gguf_layout(const GgufMetadata& metadata, std::vector<GgufItem> items);

/// Writes version 3; the tensors never have to be in memory together:
///
///   GgufWriter writer(path, metadata, items);
///   for (const auto& item : items) writer.write(bytes_of(item));   // in pieces of any size
///   writer.commit();
class GgufWriter {
 public:
  using Item = GgufItem;

  /// Throws as gguf_layout() does.
  GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata,
             std::vector<Item> items);
  /// For work that can be taken up again: what is written goes to `partial`, which stays until
  /// commit() renames it. The first `finished` items are in it already; the caller has checked
  /// them.
  GgufWriter(const std::filesystem::path& path, GgufLayout layout,
             const std::filesystem::path& partial, size_t finished);

  const std::vector<Item>& items() const { return layout_.items; }
  /// The next bytes of the tensors in the order of the items; padding goes in by itself.
  void write(std::span<const std::byte> bytes);
  /// What was written survives the end of this process.
  void flush() { file_.flush(); }
  /// Throws invalid_argument if bytes are missing; the file appears under its name only here.
  void commit();

 private:
  void pad();
  void finish_tensors();

  GgufLayout layout_;
  AtomicFile file_;
  size_t current_ = 0;    // item being written
  uint64_t written_ = 0;  // bytes of it
};

/// Bytes of a tensor; throws invalid_argument as gguf_layout() does.
uint64_t gguf_tensor_bytes(const GgufItem& item);

}  // namespace narrow
