// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/trie.h"

#include <utility>

namespace narrow::llm {

Trie::Trie() : root_(256, kNone), values_(1, kNone), slots_(64), mask_(63) {}

void Trie::put(uint64_t key, int32_t node) {
  if (2 * (used_ + 1) > slots_.size()) {
    const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(2 * slots_.size()));
    mask_ = slots_.size() - 1;
    used_ = 0;
    for (const Slot& s : old) {
      if (s.key != kEmpty) put(s.key, s.node);
    }
  }
  size_t i = slot_of(key);
  while (slots_[i].key != kEmpty) i = (i + 1) & mask_;
  slots_[i] = {key, node};
  ++used_;
}

void Trie::insert(std::string_view key, int32_t value) {
  int32_t node = kRoot;
  for (const char c : key) {
    int32_t next = step(node, c);
    if (next == kNone) {
      next = static_cast<int32_t>(values_.size());
      values_.push_back(kNone);
      const auto b = static_cast<uint8_t>(c);
      if (node == kRoot) {
        root_[b] = next;
      } else {
        put(static_cast<uint64_t>(node) << 8 | b, next);
      }
    }
    node = next;
  }
  int32_t& v = values_[static_cast<size_t>(node)];
  if (v == kNone) v = value;
}

int32_t Trie::walk(int32_t node, std::string_view text) const {
  for (const char c : text) {
    node = step(node, c);
    if (node == kNone) return kNone;
  }
  return node;
}

Trie::Match Trie::longest(std::string_view text) const {
  Match best;
  int32_t node = kRoot;
  for (size_t i = 0; i < text.size(); ++i) {
    node = step(node, text[i]);
    if (node == kNone) break;
    if (value(node) != kNone) best = {value(node), i + 1};
  }
  return best;
}

}  // namespace narrow::llm
