// SPDX-License-Identifier: Apache-2.0
// The unigram language model (Kudo 2018): the sequence of pieces with the highest sum of scores, by
// dynamic programming over the ends of pieces. An unknown character costs the lowest score less 10.
#include <algorithm>
#include <limits>

#include "narrow/llm/tokenizer/models.h"
#include "narrow/llm/tokenizer/trie.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

constexpr double kUnknownPenalty = 10.0;

template <class Sum>
struct Node {
  Sum score = 0;
  int32_t id = -1;
  uint32_t start = UINT32_MAX;  // UINT32_MAX: not reached
};

/// kSentencePiece: sums in float, only reachable pieces, user-defined ones always win. Otherwise as
/// `tokenizers`: sums in double, every piece.
template <bool kSentencePiece>
class Unigram final : public WordModel {
 public:
  using Sum = std::conditional_t<kSentencePiece, float, double>;

  explicit Unigram(const TokenizerData& data)
      : data_(data), index_(index_pieces(data)), bytes_(byte_piece_ids(index_)) {
    double lowest = std::numeric_limits<double>::max();
    double highest = std::numeric_limits<double>::lowest();
    for (size_t id = 0; id < model_size(data); ++id) {
      const bool counts = !kSentencePiece || type_of(data, id) == PieceType::normal;
      if (counts) lowest = std::min(lowest, data.scores[id]);
      if (counts) highest = std::max(highest, data.scores[id]);
      const bool taken =
          !kSentencePiece || (is_reachable(data, id) && type_of(data, id) != PieceType::unused);
      if (taken && !data.pieces[id].empty()) {
        trie_.insert(data.pieces[id], static_cast<int32_t>(id));
      }
      if (kSentencePiece && type_of(data, id) == PieceType::unknown)
        unk_ = static_cast<int32_t>(id);
    }
    if (!kSentencePiece) unk_ = data.special.unk;
    if (lowest > highest) lowest = highest = 0;
    highest_ = static_cast<float>(highest);
    unknown_score_ = static_cast<Sum>(static_cast<Sum>(lowest) - static_cast<Sum>(kUnknownPenalty));
  }

  // Sums of float depend on what came before, so that even ties go as in the reference.
  bool is_cacheable() const override { return !kSentencePiece; }

  void encode(std::string_view word, std::vector<int32_t>& ids) const override {
    std::vector<Node<Sum>> best(word.size() + 1);
    best[0].start = 0;
    for (size_t at = 0; at < word.size();) {
      at += extend(word, at, best);
    }
    struct Piece {
      uint32_t start, end;
      int32_t id;
    };
    std::vector<Piece> path;
    for (auto end = static_cast<uint32_t>(word.size()); end > 0;) {
      const Node<Sum>& n = best[end];
      // A run of unknown characters is one unknown piece.
      if (n.id == unk_ && !path.empty() && path.back().id == unk_) {
        path.back().start = n.start;
      } else {
        path.push_back({n.start, end, n.id});
      }
      end = n.start;
    }
    for (auto p = path.rbegin(); p != path.rend(); ++p) {
      append(word.substr(p->start, p->end - p->start), p->id, ids);
    }
  }

 private:
  /// Extends the best path that ends at `at` by every piece; returns the character's length.
  size_t extend(std::string_view word, size_t at, std::vector<Node<Sum>>& best) const {
    const size_t length = decode_utf8(word.substr(at)).length;
    const Sum so_far = best[at].score;
    bool has_single = false;
    const auto offer = [&](size_t end, Sum score, int32_t id) {
      Node<Sum>& n = best[end];
      if (n.start == UINT32_MAX || score > n.score) {
        n = {score, id, static_cast<uint32_t>(at)};
      }
    };
    int32_t node = Trie::kRoot;
    for (size_t i = at; i < word.size(); ++i) {
      node = trie_.step(node, word[i]);
      if (node == Trie::kNone) break;
      const int32_t id = trie_.value(node);
      if (id == Trie::kNone) continue;
      const size_t bytes = i + 1 - at;
      double score = data_.scores[static_cast<size_t>(id)];
      if (kSentencePiece && type_of(data_, static_cast<size_t>(id)) == PieceType::user_defined) {
        score = static_cast<double>(static_cast<float>(bytes) * highest_) - 0.1;
      }
      offer(i + 1, static_cast<Sum>(score) + so_far, id);
      has_single = has_single || bytes == length;
    }
    if (!has_single) offer(at + length, unknown_score_ + so_far, unk_);
    return length;
  }

  void append(std::string_view text, int32_t id, std::vector<int32_t>& ids) const {
    if (id != unk_) {
      ids.push_back(id);
      return;
    }
    if (!kSentencePiece) {
      if (const auto whole = index_.find(text); whole != index_.end()) {
        ids.push_back(whole->second);
        return;
      }
    }
    const auto id_of = [this](char c) { return bytes_[static_cast<uint8_t>(c)]; };
    if (data_.byte_fallback &&
        std::all_of(text.begin(), text.end(), [&](char c) { return id_of(c) >= 0; })) {
      for (const char c : text) ids.push_back(id_of(c));
      return;
    }
    ids.push_back(unk_);
  }

  const TokenizerData& data_;
  PieceIndex index_;
  std::vector<int32_t> bytes_;
  Trie trie_;
  int32_t unk_ = -1;
  float highest_ = 0;
  Sum unknown_score_ = 0;
};

}  // namespace

std::unique_ptr<WordModel> make_unigram(const TokenizerData& data) {
  if (data.model == TokenizerModel::spm_unigram) return std::make_unique<Unigram<true>>(data);
  return std::make_unique<Unigram<false>>(data);
}

}  // namespace narrow::llm
