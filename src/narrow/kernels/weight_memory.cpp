// SPDX-License-Identifier: Apache-2.0
#include "narrow/kernels/weight_memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <mutex>
#include <string>

#include "narrow/core/error.h"

namespace narrow::kernels {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kHuge = size_t{2} << 20;
// A dozen of matrices of a model of 300 million weights. What is not taken is not touched.
constexpr size_t kChunk = size_t{32} << 20;

constexpr const char* kWeights = "packed weights";

/// The chunk that has room; pieces keep it alive, this does not.
struct Open {
  std::mutex mutex;
  std::weak_ptr<uint8_t> chunk;
  size_t used = 0;
};

std::shared_ptr<uint8_t> piece_of_chunk(size_t bytes) {
  static Open open;
  const size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
  const std::scoped_lock lock(open.mutex);
  std::shared_ptr<uint8_t> chunk = open.chunk.lock();
  if (chunk == nullptr || rounded > kChunk - open.used) {
    chunk = huge_memory(kChunk, kWeights);
    open.chunk = chunk;
    open.used = 0;
  }
  uint8_t* piece = chunk.get() + open.used;
  open.used += rounded;
  return {chunk, piece};
}

}  // namespace

std::shared_ptr<uint8_t> huge_memory(size_t bytes, const char* what) {
  const size_t alignment = bytes < kHuge ? kAlign : kHuge;
  const size_t rounded = (bytes / alignment + 1) * alignment;
  void* p = rounded < bytes ? nullptr : std::aligned_alloc(alignment, rounded);
  if (p == nullptr) {
    throw Error(ErrorCode::resource_exhausted,
                "no memory for " + std::to_string(bytes) + " bytes of " + what);
  }
  std::shared_ptr<uint8_t> memory(static_cast<uint8_t*>(p), [](uint8_t* q) { std::free(q); });
#if defined(__linux__)
  if (bytes >= kHuge) ::madvise(p, bytes / kHuge * kHuge, MADV_HUGEPAGE);  // a hint: may fail
#endif
  return memory;
}

std::shared_ptr<uint8_t> weight_memory(size_t bytes) {
  // Chunks waste a quarter at most.
  return bytes > kChunk / 4 ? huge_memory(bytes, kWeights) : piece_of_chunk(bytes);
}

}  // namespace narrow::kernels
