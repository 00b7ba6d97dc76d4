// SPDX-License-Identifier: Apache-2.0
// A map from byte strings to numbers that is walked byte by byte: every prefix of a text that is a
// key is found in one pass.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace narrow::llm {

class Trie {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNone = -1;

  Trie();
  /// A key that is there already keeps its first value.
  void insert(std::string_view key, int32_t value);
  bool empty() const { return values_.size() == 1; }

  /// The node one byte below, or kNone.
  int32_t step(int32_t node, char byte) const {
    const auto b = static_cast<uint8_t>(byte);
    if (node == kRoot) return root_[b];
    const uint64_t key = static_cast<uint64_t>(node) << 8 | b;
    for (size_t i = slot_of(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return slots_[i].node;
      if (slots_[i].key == kEmpty) return kNone;
    }
  }
  /// The node below all of `text`, or kNone.
  int32_t walk(int32_t node, std::string_view text) const;
  /// The value of the key that ends at a node, or kNone.
  int32_t value(int32_t node) const { return values_[static_cast<size_t>(node)]; }

  struct Match {
    int32_t value = kNone;
    size_t length = 0;
  };
  /// The longest key that `text` starts with.
  Match longest(std::string_view text) const;

 private:
  static constexpr uint64_t kEmpty = 0;  // no child of a node has this key: root_ has the root's
  struct Slot {
    uint64_t key = kEmpty;
    int32_t node = kNone;
  };
  size_t slot_of(uint64_t key) const {
    return static_cast<size_t>(key * 0x9E3779B97F4A7C15ull >> 32) & mask_;
  }
  void put(uint64_t key, int32_t node);

  std::vector<int32_t> root_;
  std::vector<int32_t> values_;  // by node
  std::vector<Slot> slots_;
  size_t used_ = 0;
  size_t mask_ = 0;
};

}  // namespace narrow::llm
