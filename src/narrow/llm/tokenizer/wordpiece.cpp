// SPDX-License-Identifier: Apache-2.0
// WordPiece: from each position the longest piece; a word that gets stuck is unknown as a whole.
#include "narrow/llm/tokenizer/models.h"
#include "narrow/llm/tokenizer/trie.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

class WordPiece final : public WordModel {
 public:
  explicit WordPiece(const TokenizerData& data) : data_(data) {
    for (size_t id = 0; id < model_size(data); ++id) {
      trie_.insert(data.pieces[id], static_cast<int32_t>(id));
      if (data.pieces[id] == data.unk_piece) unk_ = static_cast<int32_t>(id);
    }
    start_ = trie_.walk(Trie::kRoot, data.word_prefix);
    inside_ = trie_.walk(Trie::kRoot, data.continuing_prefix);
  }

  void encode(std::string_view word, std::vector<int32_t>& ids) const override {
    const size_t first = ids.size();
    if (is_too_long(word)) {
      ids.push_back(unk_);
      return;
    }
    for (size_t at = 0; at < word.size();) {
      int32_t node = at == 0 ? start_ : inside_;
      size_t end = at;
      int32_t id = Trie::kNone;
      for (size_t i = at; i < word.size() && node != Trie::kNone; ++i) {
        node = trie_.step(node, word[i]);
        if (node == Trie::kNone || trie_.value(node) == Trie::kNone) continue;
        const bool whole_char = i + 1 == word.size() || (word[i + 1] & 0xC0) != 0x80;
        if (!whole_char) continue;
        end = i + 1;
        id = trie_.value(node);
      }
      if (id == Trie::kNone) {
        ids.resize(first);
        ids.push_back(unk_);
        return;
      }
      ids.push_back(id);
      at = end;
    }
  }

 private:
  bool is_too_long(std::string_view word) const {
    if (data_.max_word_chars <= 0) return false;
    int32_t chars = 0;
    for (const char c : word) chars += (c & 0xC0) != 0x80;
    return chars > data_.max_word_chars;
  }

  const TokenizerData& data_;
  Trie trie_;
  int32_t start_ = Trie::kRoot;   // where words start in the trie
  int32_t inside_ = Trie::kRoot;  // where continuations do
  int32_t unk_ = -1;
};

}  // namespace

std::unique_ptr<WordModel> make_wordpiece(const TokenizerData& data) {
  return std::make_unique<WordPiece>(data);
}

}  // namespace narrow::llm
