// SPDX-License-Identifier: Apache-2.0
// Memory whose first or last byte touches a page that may not be accessed: a kernel that reads or
// writes one byte too far ends the test program.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace narrow::testing {

enum class Guard { behind, before };

template <class T>
class GuardBuffer {
 public:
  explicit GuardBuffer(size_t count, Guard guard = Guard::behind) : count_(count) {
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t inner = (count * sizeof(T) + page - 1) / page * page;
    mapped_ = inner + 2 * page;
    void* p = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::runtime_error("mmap failed");
    base_ = static_cast<std::byte*>(p);
    ::mprotect(base_, page, PROT_NONE);
    ::mprotect(base_ + page + inner, page, PROT_NONE);
    std::byte* begin = base_ + page;
    if (guard == Guard::behind) begin += inner - count * sizeof(T);
    data_ = reinterpret_cast<T*>(begin);
  }
  ~GuardBuffer() { ::munmap(base_, mapped_); }
  GuardBuffer(const GuardBuffer&) = delete;
  GuardBuffer& operator=(const GuardBuffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + count_; }

 private:
  size_t count_;
  size_t mapped_;
  std::byte* base_;
  T* data_;
};

}  // namespace narrow::testing
