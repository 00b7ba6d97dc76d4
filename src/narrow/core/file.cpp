// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "narrow/core/error.h"

namespace narrow {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;  // few system calls, little memory

[[noreturn]] void fail(const char* what, const std::filesystem::path& path, int error) {
  const ErrorCode code = error == ENOENT                      ? ErrorCode::not_found
                         : error == ENOSPC || error == EDQUOT ? ErrorCode::resource_exhausted
                                                              : ErrorCode::io_error;
  std::string hint;
  if (error == ENOENT) hint = "check the path";
  if (error == ENOSPC || error == EDQUOT) hint = "free some space or write to another disk";
  if (error == EACCES) hint = "check the permissions";
  throw Error(code, fmt::format("cannot {} '{}': {}", what, path.string(), std::strerror(error)),
              hint);
}

void sync_folder(const std::filesystem::path& file) {
  const auto parent = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const int fd = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // the rename is done; only its durability is at stake
  ::fsync(fd);
  ::close(fd);
}

[[noreturn]] void refuse_special(const std::filesystem::path& path) {
  throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is not a file", path.string()),
              "pipes, devices and folders are neither read nor written");
}

/// Where files are mapped: memory of other kinds would lose its content if it were released.
class Mappings {
 public:
  static Mappings& all() {
    static Mappings mappings;
    return mappings;
  }
  void add(const std::byte* data, size_t size) {
    const std::lock_guard lock(mutex_);
    ends_[reinterpret_cast<uintptr_t>(data)] = reinterpret_cast<uintptr_t>(data) + size;
  }
  void remove(const std::byte* data) {
    const std::lock_guard lock(mutex_);
    ends_.erase(reinterpret_cast<uintptr_t>(data));
  }
  bool contains(uintptr_t begin, size_t size) const {
    const std::lock_guard lock(mutex_);
    auto after = ends_.upper_bound(begin);
    return after != ends_.begin() && begin + size <= std::prev(after)->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<uintptr_t, uintptr_t> ends_;  // by the begin
};

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe would wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail("open", path, errno);
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    const int error = errno;
    ::close(fd);
    fail("read", path, error);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(fd);
    refuse_special(path);
  }
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  file->size_ = static_cast<size_t>(status.st_size);
  if (file->size_ > 0) {
    void* p = ::mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
      const int error = errno;
      ::close(fd);
      fail("map", path, error);
    }
    file->data_ = static_cast<const std::byte*>(p);
    Mappings::all().add(file->data_, file->size_);
  }
  ::close(fd);
  return file;
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  Mappings::all().remove(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release(std::span<const std::byte> part) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(part.data());
  if (part.empty() || !Mappings::all().contains(begin, part.size())) return;
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + part.size()) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  // The rename would put a file in the place of a device (root and /dev/null) or a pipe.
  struct stat status {};
  if (::stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) refuse_special(path_);
  static std::atomic<unsigned> counter{0};
  do {  // a killed process of the same number may have left its temporary file
    temporary_ = path_;
    temporary_ += fmt::format(".tmp.{}.{}", ::getpid(), counter++);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) fail("write", path_, errno);
  buffer_.reserve(kBufferBytes);
}

AtomicFile::AtomicFile(std::filesystem::path path, std::filesystem::path partial,
                       uint64_t keep_bytes)
    : path_(std::move(path)), temporary_(std::move(partial)), keep_(true), position_(keep_bytes) {
  const auto give_up = [&](const char* what) {
    const int error = errno;
    ::close(std::exchange(fd_, -1));
    fail(what, temporary_, error);
  };
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("write", temporary_, errno);
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    ::close(std::exchange(fd_, -1));
    throw Error(ErrorCode::io_error,
                fmt::format("another process is writing '{}'", temporary_.string()),
                "wait for it, or end it");
  }
  struct stat status {};
  if (::fstat(fd_, &status) != 0) give_up("read");
  if (static_cast<uint64_t>(status.st_size) < keep_bytes) {
    ::close(std::exchange(fd_, -1));
    throw Error(ErrorCode::corrupt_data,
                fmt::format("'{}' has {} bytes, not the {} that were written", temporary_.string(),
                            status.st_size, keep_bytes));
  }
  const auto keep = static_cast<off_t>(keep_bytes);
  if (::ftruncate(fd_, keep) != 0 || ::lseek(fd_, keep, SEEK_SET) != keep) give_up("write");
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!keep_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  position_ += bytes;
  if (buffer_.size() + bytes <= kBufferBytes) {
    buffer_.append(static_cast<const char*>(data), bytes);
    return;
  }
  flush();
  if (bytes <= kBufferBytes) {
    buffer_.assign(static_cast<const char*>(data), bytes);
    return;
  }
  write_out(static_cast<const char*>(data), bytes);
}

void AtomicFile::write_out(const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, data, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("write", path_, errno);
    data += n;
    bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::flush() {
  write_out(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void AtomicFile::commit() {
  flush();
  if (::fsync(fd_) != 0) fail("sync", path_, errno);
  if (::close(std::exchange(fd_, -1)) != 0) {
    const int error = errno;
    if (!keep_) ::unlink(temporary_.c_str());
    fail("close", path_, error);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    if (!keep_) ::unlink(temporary_.c_str());
    fail("write", path_, error);
  }
  sync_folder(path_);
}

void rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::error_code error;
  std::filesystem::rename(from, to, error);
  if (!error) return;
  throw Error(ErrorCode::io_error, fmt::format("{}: cannot be renamed to {}: {}", from.string(),
                                               to.string(), error.message()));
}

std::string read_text(const std::filesystem::path& path, size_t max_bytes) {
  const auto file = MappedFile::open(path);
  if (file->bytes().size() > max_bytes) {
    throw Error(ErrorCode::resource_exhausted,
                fmt::format("'{}' has {} bytes, more than the {} allowed here", path.string(),
                            file->bytes().size(), max_bytes));
  }
  return std::string(file->text());
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace narrow
