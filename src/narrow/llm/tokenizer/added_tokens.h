// SPDX-License-Identifier: Apache-2.0
// Finds added tokens in a text: leftmost first, of those that start together the longest.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "narrow/llm/tokenizer/tokenizer_data.h"
#include "narrow/llm/tokenizer/trie.h"

namespace narrow::llm {

/// A stretch of text, or (id >= 0) a token in its place.
struct Section {
  std::string_view text;
  int32_t id = -1;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  /// Calls `found` for each section that is not empty, in order. Special tokens stay text unless
  /// parse_special.
  void split(std::string_view text, bool parse_special,
             const std::function<void(const Section&)>& found) const;

 private:
  std::vector<AddedToken> tokens_;
  Trie trie_;  // content -> index in tokens_
  std::array<bool, 256> starts_{};
};

}  // namespace narrow::llm
