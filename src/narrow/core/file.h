// SPDX-License-Identifier: Apache-2.0
// Files: read through a mapping, written under a temporary name and renamed when complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace narrow {

/// A file mapped read-only. Share it to keep tensors that point into it alive.
class MappedFile {
 public:
  /// Throws not_found, io_error, or invalid_argument for what is no regular file, naming the path.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  /// Tells the system that a part of some mapped file is not needed for now, so that reading a
  /// large file once does not fill the memory. It may be read again. Other memory is left alone.
  static void release(std::span<const std::byte> part);

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Writes to a temporary file beside `path`; commit() syncs and renames it over `path`. Without
/// commit() the destructor removes it and an older file stays whole.
class AtomicFile {
 public:
  /// Throws as write() does, and invalid_argument where `path` is something else than a file.
  explicit AtomicFile(std::filesystem::path path);
  /// For work that can go on after a crash: the temporary is called `partial`, its first
  /// `keep_bytes` stay, and the destructor leaves it. Throws corrupt_data if it is shorter than
  /// that, io_error if another process is writing it.
  AtomicFile(std::filesystem::path path, std::filesystem::path partial, uint64_t keep_bytes);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Throws io_error (or resource_exhausted when the disk is full), naming the path.
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  uint64_t position() const { return position_; }
  const std::filesystem::path& temporary_path() const { return temporary_; }
  /// Hands what was written to the system: it survives the end of this process, however it ends.
  void flush();
  void commit();

 private:
  void write_out(const char* data, size_t bytes);
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  bool keep_ = false;
  int fd_ = -1;
  uint64_t position_ = 0;
  std::string buffer_;
};

/// Gives what stands under `from`, a file or a folder, the name `to`. For what is made of several
/// files, which AtomicFile cannot hold. Throws io_error naming `to`.
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);

/// A whole small text file. Throws not_found, io_error, or resource_exhausted past `max_bytes`.
std::string read_text(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 26);
void write_text(const std::filesystem::path& path, std::string_view text);

}  // namespace narrow
