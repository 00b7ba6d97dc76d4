// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/zip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <optional>

#include "narrow/core/error.h"
#include "narrow/data/bytes.h"
#include "narrow/data/inflate.h"

namespace narrow {
namespace {

// Signatures and the lengths of the fixed parts (APPNOTE 4.3).
constexpr uint32_t kLocal = 0x04034b50;
constexpr uint32_t kCentral = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kLocator64 = 0x07064b50;
constexpr size_t kLocalBytes = 30;
constexpr size_t kCentralBytes = 46;
constexpr size_t kEndBytes = 22;
constexpr size_t kEnd64Bytes = 56;
constexpr size_t kLocatorBytes = 20;
constexpr uint16_t kZip64Extra = 0x0001;
constexpr uint16_t kPaddingExtra = 0xd935;  // the id that Android's zipalign uses for alignment
constexpr uint32_t kMax32 = 0xffffffff;     // "look in the zip64 record"
constexpr uint16_t kMax16 = 0xffff;
constexpr size_t kAlignment = 64;  // a cache line, and the widest vector

/// Bounds-checked little-endian reading.
class Bytes {
 public:
  Bytes(std::span<const std::byte> all, const std::string& what) : all_(all), what_(what) {}

  [[noreturn]] void corrupt(std::string_view why) const {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: {}", what_, why),
                "the archive is damaged; fetch or write it again");
  }
  std::span<const std::byte> slice(uint64_t offset, uint64_t length) const {
    if (offset > all_.size() || length > all_.size() - offset) {
      corrupt("the archive ends too early");
    }
    return all_.subspan(offset, length);
  }
  template <class T>
  T at(uint64_t offset) const {
    return narrow::load_little_endian<T>(slice(offset, sizeof(T)).data());
  }
  size_t size() const { return all_.size(); }
  const std::string& what() const { return what_; }

 private:
  std::span<const std::byte> all_;
  const std::string& what_;
};

struct Directory {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t members = 0;
};

/// The end record lies at the end, before a comment of at most 64 KiB.
std::optional<size_t> find_end(const Bytes& in) {
  if (in.size() < kEndBytes) return std::nullopt;
  const size_t last = in.size() - kEndBytes;
  const size_t first = last > kMax16 ? last - kMax16 : 0;
  for (size_t at = last + 1; at-- > first;) {
    if (in.at<uint32_t>(at) != kEnd) continue;
    if (in.at<uint16_t>(at + 20) == last - at) return at;
  }
  return std::nullopt;
}

Directory find_directory(const Bytes& in) {
  const auto end = find_end(in);
  if (!end) in.corrupt("not a zip archive, or cut off: it has no end record");
  Directory d;
  d.members = in.at<uint16_t>(*end + 10);
  d.bytes = in.at<uint32_t>(*end + 12);
  d.offset = in.at<uint32_t>(*end + 16);
  const bool zip64 = d.members == kMax16 || d.bytes == kMax32 || d.offset == kMax32;
  if (zip64 && *end >= kLocatorBytes && in.at<uint32_t>(*end - kLocatorBytes) == kLocator64) {
    const auto at = in.at<uint64_t>(*end - kLocatorBytes + 8);
    if (in.slice(at, kEnd64Bytes).empty() || in.at<uint32_t>(at) != kEnd64) {
      in.corrupt("the zip64 end record is missing");
    }
    d.members = in.at<uint64_t>(at + 32);
    d.bytes = in.at<uint64_t>(at + 40);
    d.offset = in.at<uint64_t>(at + 48);
  }
  (void)in.slice(d.offset, d.bytes);
  if (d.members > d.bytes / kCentralBytes) in.corrupt("claims more members than it has");
  return d;
}

struct Central {
  ZipMember member;
  uint64_t packed_size = 0;
  uint64_t local_offset = 0;
};

/// Sizes that did not fit 32 bits stand in the zip64 extra field, in this order.
void read_zip64_extra(const Bytes& in, uint64_t at, uint64_t length, Central& c) {
  const uint64_t end = at + length;
  while (at + 4 <= end) {
    const auto id = in.at<uint16_t>(at);
    const auto size = in.at<uint16_t>(at + 2);
    at += 4;
    if (size > end - at) in.corrupt("an extra field is cut off");
    if (id == kZip64Extra) {
      uint64_t field = at;
      for (uint64_t* value : {&c.member.size, &c.packed_size, &c.local_offset}) {
        if (*value != kMax32) continue;
        if (field + 8 > at + size) in.corrupt("a zip64 field is cut off");
        *value = in.at<uint64_t>(field);
        field += 8;
      }
    }
    at += size;
  }
}

/// Reads the entry at `at` and moves past it.
Central read_central(const Bytes& in, uint64_t& at, uint64_t end) {
  (void)in.slice(at, kCentralBytes);
  if (in.at<uint32_t>(at) != kCentral) in.corrupt("the directory is damaged");
  const uint64_t name_bytes = in.at<uint16_t>(at + 28);
  const uint64_t extra_bytes = in.at<uint16_t>(at + 30);
  const uint64_t comment_bytes = in.at<uint16_t>(at + 32);
  const uint64_t next = at + kCentralBytes + name_bytes + extra_bytes + comment_bytes;
  if (next > end) in.corrupt("the directory is cut off");
  Central c;
  c.member.method = in.at<uint16_t>(at + 10);
  c.member.crc = in.at<uint32_t>(at + 16);
  c.packed_size = in.at<uint32_t>(at + 20);
  c.member.size = in.at<uint32_t>(at + 24);
  c.local_offset = in.at<uint32_t>(at + 42);
  const auto name = in.slice(at + kCentralBytes, name_bytes);
  c.member.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  read_zip64_extra(in, at + kCentralBytes + name_bytes, extra_bytes, c);
  const auto flags = in.at<uint16_t>(at + 8);
  if ((flags & 1) != 0) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: member '{}' is encrypted", in.what(), c.member.name));
  }
  if (c.member.method != 0 && c.member.method != 8) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: member '{}' uses compression method {}", in.what(), c.member.name,
                            c.member.method),
                "store or deflate it, as numpy.savez and numpy.savez_compressed do");
  }
  at = next;
  return c;
}

void locate_data(const Bytes& in, Central& c) {
  (void)in.slice(c.local_offset, kLocalBytes);
  if (in.at<uint32_t>(c.local_offset) != kLocal) in.corrupt("a member's header is missing");
  const uint64_t data = c.local_offset + kLocalBytes + in.at<uint16_t>(c.local_offset + 26) +
                        in.at<uint16_t>(c.local_offset + 28);
  c.member.stored_bytes = in.slice(data, c.packed_size);
  if (c.member.method == 0 && c.packed_size != c.member.size) {
    in.corrupt("a stored member has two sizes");
  }
}

}  // namespace

std::vector<ZipMember> list_zip(std::span<const std::byte> bytes, const std::string& what) {
  const Bytes in(bytes, what);
  const Directory directory = find_directory(in);
  std::vector<ZipMember> members;
  uint64_t at = directory.offset;
  uint64_t packed = 0;  // members that share bytes could claim more than the archive holds
  for (uint64_t i = 0; i < directory.members; ++i) {
    Central c = read_central(in, at, directory.offset + directory.bytes);
    locate_data(in, c);
    packed += c.packed_size;
    if (packed > in.size()) in.corrupt("members overlap");
    members.push_back(std::move(c.member));
  }
  return members;
}

std::span<const std::byte> unpack(const ZipMember& member, std::vector<std::byte>& storage,
                                  const std::string& what) {
  std::span<const std::byte> out = member.stored_bytes;
  const std::string place = fmt::format("{}: member '{}'", what, member.name);
  if (member.method != 0) {
    storage = inflate_exactly(member.stored_bytes, member.size, Wrapper::raw_deflate, place);
    out = storage;
  }
  if (crc32_of(out) != member.crc) {
    throw Error(ErrorCode::corrupt_data, place + ": the checksum does not match",
                "the archive is damaged; fetch or write it again");
  }
  return out;
}

void ZipWriter::add(const std::string& name, std::string_view head,
                    std::span<const std::byte> body) {
  const auto* head_bytes = reinterpret_cast<const std::byte*>(head.data());
  Entry entry{name, crc32_of({head_bytes, head.size()}), head.size() + body.size(),
              file_.position()};
  entry.crc = static_cast<uint32_t>(
      crc32_z(entry.crc, reinterpret_cast<const Bytef*>(body.data()), body.size()));
  constexpr size_t kSizesExtra = 20;  // both sizes in 64 bits, as numpy writes
  const uint64_t unpadded =
      entry.offset + kLocalBytes + name.size() + kSizesExtra + 4 /* the padding's own header */;
  const auto padding = static_cast<uint16_t>((kAlignment - unpadded % kAlignment) % kAlignment);

  std::string out;
  append_little_endian<uint32_t>(out, kLocal);
  append_little_endian<uint16_t>(out, 45);          // version needed: zip64
  append_little_endian<uint16_t>(out, 1 << 11);     // the name is UTF-8
  append_little_endian<uint16_t>(out, 0);           // stored
  append_little_endian<uint32_t>(out, 0x00210000);  // 1980-01-01, the first day of the format
  append_little_endian<uint32_t>(out, entry.crc);
  append_little_endian<uint32_t>(out, kMax32);
  append_little_endian<uint32_t>(out, kMax32);
  append_little_endian<uint16_t>(out, static_cast<uint16_t>(name.size()));
  append_little_endian<uint16_t>(out, static_cast<uint16_t>(kSizesExtra + 4 + padding));
  out += name;
  append_little_endian<uint16_t>(out, kZip64Extra);
  append_little_endian<uint16_t>(out, 16);
  append_little_endian<uint64_t>(out, entry.size);
  append_little_endian<uint64_t>(out, entry.size);
  append_little_endian<uint16_t>(out, kPaddingExtra);
  append_little_endian<uint16_t>(out, padding);
  out.append(padding, '\0');
  file_.write(out);
  file_.write(head);
  file_.write(body.data(), body.size());
  entries_.push_back(std::move(entry));
}

void ZipWriter::finish() {
  const uint64_t start = file_.position();
  for (const Entry& entry : entries_) {
    std::string out;
    append_little_endian<uint32_t>(out, kCentral);
    append_little_endian<uint16_t>(out, 45);  // written by: zip64, no particular system
    append_little_endian<uint16_t>(out, 45);
    append_little_endian<uint16_t>(out, 1 << 11);
    append_little_endian<uint16_t>(out, 0);
    append_little_endian<uint32_t>(out, 0x00210000);
    append_little_endian<uint32_t>(out, entry.crc);
    append_little_endian<uint32_t>(out, kMax32);
    append_little_endian<uint32_t>(out, kMax32);
    append_little_endian<uint16_t>(out, static_cast<uint16_t>(entry.name.size()));
    append_little_endian<uint16_t>(out, 28);
    out.append(10, '\0');  // comment, disk, internal and external attributes
    append_little_endian<uint32_t>(out, kMax32);
    out += entry.name;
    append_little_endian<uint16_t>(out, kZip64Extra);
    append_little_endian<uint16_t>(out, 24);
    append_little_endian<uint64_t>(out, entry.size);
    append_little_endian<uint64_t>(out, entry.size);
    append_little_endian<uint64_t>(out, entry.offset);
    file_.write(out);
  }
  const uint64_t end = file_.position();
  std::string out;
  append_little_endian<uint32_t>(out, kEnd64);
  append_little_endian<uint64_t>(out, kEnd64Bytes - 12);
  append_little_endian<uint16_t>(out, 45);
  append_little_endian<uint16_t>(out, 45);
  append_little_endian<uint64_t>(out, 0);  // this disk and the directory's
  append_little_endian<uint64_t>(out, entries_.size());
  append_little_endian<uint64_t>(out, entries_.size());
  append_little_endian<uint64_t>(out, end - start);
  append_little_endian<uint64_t>(out, start);
  append_little_endian<uint32_t>(out, kLocator64);
  append_little_endian<uint32_t>(out, 0);
  append_little_endian<uint64_t>(out, end);
  append_little_endian<uint32_t>(out, 1);
  append_little_endian<uint32_t>(out, kEnd);
  append_little_endian<uint32_t>(out, 0);
  append_little_endian<uint16_t>(out, kMax16);
  append_little_endian<uint16_t>(out, kMax16);
  append_little_endian<uint32_t>(out, kMax32);
  append_little_endian<uint32_t>(out, kMax32);
  append_little_endian<uint16_t>(out, 0);
  file_.write(out);
  file_.commit();
}

}  // namespace narrow
