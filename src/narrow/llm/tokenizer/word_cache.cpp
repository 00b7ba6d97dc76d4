// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/word_cache.h"

#include <cstring>
#include <utility>

namespace narrow::llm {

uint64_t WordCache::hash(std::string_view word) {
  uint64_t state = word.size() * 0x9E3779B97F4A7C15ull;
  const auto mix = [&state](uint64_t w) {
    state = (state ^ w) * 0xD6E8FEB86659FD93ull;
    state ^= state >> 32;
  };
  size_t i = 0;
  for (; i + 8 <= word.size(); i += 8) {
    uint64_t w;
    std::memcpy(&w, word.data() + i, 8);
    mix(w);
  }
  uint64_t tail = 0;
  for (size_t k = 0; i + k < word.size(); ++k) {
    tail |= static_cast<uint64_t>(static_cast<uint8_t>(word[i + k])) << (8 * k);
  }
  mix(tail);
  return state;
}

bool WordCache::find(std::string_view word, uint64_t hash, std::vector<int32_t>& ids) const {
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    const Slot& s = slots_[i];
    if (s.text_size == 0) return false;
    if (s.hash != hash || s.text_size != word.size() ||
        std::memcmp(texts_.data() + s.text, word.data(), word.size()) != 0) {
      continue;
    }
    ids.insert(ids.end(), ids_.begin() + s.ids, ids_.begin() + s.ids + s.ids_size);
    return true;
  }
}

void WordCache::put(std::string_view word, uint64_t hash, std::span<const int32_t> ids) {
  if (2 * (used_ + 1) > slots_.size()) grow();
  const size_t mask = slots_.size() - 1;
  size_t i = hash & mask;
  while (slots_[i].text_size != 0) i = (i + 1) & mask;
  slots_[i] = {hash, static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(ids_.size()),
               static_cast<uint16_t>(word.size()), static_cast<uint16_t>(ids.size())};
  texts_.append(word);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++used_;
}

void WordCache::grow() {
  if (slots_.size() >= kMostSlots) {
    *this = WordCache();
    return;
  }
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(4 * slots_.size()));
  const size_t mask = slots_.size() - 1;
  for (const Slot& s : old) {
    if (s.text_size == 0) continue;
    size_t i = s.hash & mask;
    while (slots_[i].text_size != 0) i = (i + 1) & mask;
    slots_[i] = s;
  }
}

}  // namespace narrow::llm
