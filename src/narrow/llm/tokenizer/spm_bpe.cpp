// SPDX-License-Identifier: Apache-2.0
// SentencePiece's byte-pair encoding: of all neighbours whose union is a piece, the union with the
// highest score merges first, the leftmost of equals.
#include <queue>
#include <span>

#include "narrow/llm/tokenizer/models.h"
#include "narrow/llm/tokenizer/trie.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

struct Symbol {
  uint32_t begin = 0;
  uint32_t length = 0;  // 0: merged into the left neighbour
  int32_t previous = -1;
  int32_t next = -1;
  bool frozen = false;  // user-defined: merges with nothing
};

struct Candidate {
  float score;
  int32_t left, right;
  uint32_t length;  // of the union; another one means that it is outdated
  bool operator<(const Candidate& other) const {
    return score != other.score ? score < other.score : left > other.left;
  }
};

class SpmBpe final : public WordModel {
 public:
  explicit SpmBpe(const TokenizerData& data)
      : data_(data), bytes_(byte_piece_ids(index_pieces(data))) {
    bool crossing = false;
    for (size_t id = 0; id < model_size(data); ++id) {
      const std::string& piece = data.pieces[id];
      if (type_of(data, id) == PieceType::unknown) unk_ = static_cast<int32_t>(id);
      if (!is_reachable(data, id) || piece.empty()) continue;
      index_.emplace(piece, static_cast<int32_t>(id));
      crossing = crossing || crosses_space(piece);
      if (type_of(data, id) == PieceType::user_defined) {
        user_defined_.insert(piece, static_cast<int32_t>(id));
      }
    }
    cuts_ = !crossing && index_.contains(kSpaceSymbol);
  }

  bool cuts_before_space() const override { return cuts_; }

  void encode(std::string_view word, std::vector<int32_t>& ids) const override {
    std::vector<Symbol> symbols = split(word);
    Splits splits;
    std::priority_queue<Candidate> queue;
    const auto offer = [&](int32_t left, int32_t right) {
      if (left >= 0 && right >= 0) consider(word, symbols, left, right, queue, splits);
    };
    for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) offer(i, i + 1);
    while (!queue.empty()) {
      const Candidate top = queue.top();
      queue.pop();
      Symbol& left = symbols[static_cast<size_t>(top.left)];
      Symbol& right = symbols[static_cast<size_t>(top.right)];
      if (left.length == 0 || right.length == 0 || left.length + right.length != top.length) {
        continue;
      }
      left.length = top.length;
      right.length = 0;
      left.next = right.next;
      if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.left;
      offer(left.previous, top.left);
      offer(top.left, left.next);
    }
    bool after_unknown = false;
    for (int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
      const Symbol& s = symbols[static_cast<size_t>(i)];
      append(word.substr(s.begin, s.length), splits, ids, after_unknown, 0);
    }
  }

 private:
  /// How unused pieces came together, so that they can be taken apart again.
  using Splits =
      std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>>;

  std::vector<Symbol> split(std::string_view word) const {
    std::vector<Symbol> symbols;
    symbols.reserve(word.size());
    for (size_t i = 0; i < word.size();) {
      Symbol s{static_cast<uint32_t>(i)};
      const auto own = user_defined_.longest(word.substr(i));
      s.frozen = own.length > 0;
      s.length = s.frozen ? static_cast<uint32_t>(own.length) : decode_utf8(word.substr(i)).length;
      i += s.length;
      s.previous = static_cast<int32_t>(symbols.size()) - 1;
      s.next = i < word.size() ? static_cast<int32_t>(symbols.size()) + 1 : -1;
      symbols.push_back(s);
    }
    return symbols;
  }

  void consider(std::string_view word, std::span<const Symbol> symbols, int32_t left, int32_t right,
                std::priority_queue<Candidate>& queue, Splits& splits) const {
    const Symbol& l = symbols[static_cast<size_t>(left)];
    const Symbol& r = symbols[static_cast<size_t>(right)];
    if (l.frozen || r.frozen) return;
    const std::string_view both = word.substr(l.begin, l.length + r.length);
    const auto found = index_.find(both);
    if (found == index_.end()) return;
    const auto id = static_cast<size_t>(found->second);
    queue.push({static_cast<float>(data_.scores[id]), left, right, l.length + r.length});
    if (type_of(data_, id) == PieceType::unused) {
      splits[both] = {word.substr(l.begin, l.length), word.substr(r.begin, r.length)};
    }
  }

  void append(std::string_view piece, const Splits& splits, std::vector<int32_t>& ids,
              bool& after_unknown, int depth) const {
    const auto found = index_.find(piece);
    if (found != index_.end()) {
      const bool unused = type_of(data_, static_cast<size_t>(found->second)) == PieceType::unused;
      const auto parts = unused ? splits.find(piece) : splits.end();
      // The depth is bounded: a union is longer than its parts.
      if (parts != splits.end() && depth < 1000) {
        append(parts->second.first, splits, ids, after_unknown, depth + 1);
        append(parts->second.second, splits, ids, after_unknown, depth + 1);
        return;
      }
      ids.push_back(found->second);
      after_unknown = false;
      return;
    }
    if (data_.byte_fallback) {
      for (const char c : piece) {
        const int32_t id = bytes_[static_cast<uint8_t>(c)];
        ids.push_back(id >= 0 ? id : unk_);
      }
    } else if (!after_unknown) {
      ids.push_back(unk_);
    }
    after_unknown = true;
  }

  const TokenizerData& data_;
  PieceIndex index_;  // pieces that text can become
  std::vector<int32_t> bytes_;
  Trie user_defined_;
  int32_t unk_ = -1;
  bool cuts_ = false;
};

}  // namespace

std::unique_ptr<WordModel> make_spm_bpe(const TokenizerData& data) {
  return std::make_unique<SpmBpe>(data);
}

}  // namespace narrow::llm
