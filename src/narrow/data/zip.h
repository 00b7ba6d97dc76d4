// SPDX-License-Identifier: Apache-2.0
// Zip archives as .npz files use them: stored and deflated members, zip64; read from memory (a
// mapped file), written as a stream of stored members. Format: PKWARE APPNOTE 6.3.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "narrow/core/file.h"

namespace narrow {

struct ZipMember {
  std::string name;
  uint16_t method = 0;  // 0 stored, 8 deflated
  uint32_t crc = 0;
  uint64_t size = 0;                        // unpacked
  std::span<const std::byte> stored_bytes;  // as they lie in the archive
};

/// The members in the order of the central directory; throws corrupt_data or unsupported naming
/// `what`. The spans point into `bytes`.
std::vector<ZipMember> list_zip(std::span<const std::byte> bytes, const std::string& what);

/// The unpacked bytes, checksum verified. Stored members are not copied: the span then points into
/// the archive and `storage` stays empty.
std::span<const std::byte> unpack(const ZipMember& member, std::vector<std::byte>& storage,
                                  const std::string& what);

/// Writes stored members whose data begin at multiples of 64 bytes, so that readers may map them;
/// no time stamps: the same members give the same bytes.
class ZipWriter {
 public:
  explicit ZipWriter(const std::filesystem::path& path) : file_(path) {}
  /// The member is `head` followed by `body`.
  void add(const std::string& name, std::string_view head, std::span<const std::byte> body);
  /// Writes the directory and puts the file in its place.
  void finish();

 private:
  struct Entry {
    std::string name;
    uint32_t crc;
    uint64_t size;
    uint64_t offset;
  };
  AtomicFile file_;
  std::vector<Entry> entries_;
};

}  // namespace narrow
