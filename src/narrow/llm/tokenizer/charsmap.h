// SPDX-License-Identifier: Apache-2.0
// SentencePiece's compiled character map: a double-array trie (darts-clone, Yata 2008) from byte
// strings to offsets of zero-terminated replacements. Layout: u32 bytes of the trie, the trie's u32
// units, the replacements.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace narrow::llm {

class Charsmap {
 public:
  /// Throws corrupt_data when the sizes do not fit.
  explicit Charsmap(std::string_view blob);

  struct Match {
    std::string_view replacement;
    size_t length = 0;  // bytes matched; 0: none
  };
  /// The replacement for the longest prefix of `text` in the map.
  Match longest(std::string_view text) const { return find(text, false); }
  /// For the shortest one, as `tokenizers` looks it up.
  Match shortest(std::string_view text) const { return find(text, true); }

 private:
  Match find(std::string_view text, bool first) const;
  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace narrow::llm
