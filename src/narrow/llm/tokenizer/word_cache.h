// SPDX-License-Identifier: Apache-2.0
// Remembers the ids of words. Texts repeat their words, so that most need no model.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace narrow::llm {

class WordCache {
 public:
  static constexpr size_t kMaxWord = 48;  // bytes; longer words rarely come twice

  WordCache() : slots_(kFirstSlots) {}

  static uint64_t hash(std::string_view word);
  /// Appends the ids and returns true where the word is known.
  bool find(std::string_view word, uint64_t hash, std::vector<int32_t>& ids) const;
  void put(std::string_view word, uint64_t hash, std::span<const int32_t> ids);

 private:
  // At most 64 Ki words of 24 bytes a slot: English texts have fewer, and it stays near the core.
  static constexpr size_t kFirstSlots = 1 << 12;
  static constexpr size_t kMostSlots = 1 << 17;
  struct Slot {
    uint64_t hash = 0;
    uint32_t text = 0;       // offset
    uint32_t ids = 0;        // offset
    uint16_t text_size = 0;  // 0: free
    uint16_t ids_size = 0;
  };
  void grow();

  std::vector<Slot> slots_;
  std::string texts_;
  std::vector<int32_t> ids_;
  size_t used_ = 0;
};

}  // namespace narrow::llm
