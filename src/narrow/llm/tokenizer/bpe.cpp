// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding by ranked merges (Sennrich et al. 2016): the best-ranked neighbours merge
// first, the leftmost of equals.
#include <algorithm>
#include <array>
#include <bit>
#include <queue>

#include "narrow/llm/tokenizer/models.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

constexpr int32_t kNoRank = INT32_MAX;

/// (left id, right id) -> (rank, id of the union): open addressing, half empty.
class MergeTable {
 public:
  struct Entry {
    uint64_t key = kEmpty;
    int32_t rank = kNoRank;
    int32_t id = -1;
  };

  explicit MergeTable(size_t merges)
      : slots_(std::bit_ceil(2 * merges + 2)), mask_(slots_.size() - 1) {}

  void put(int32_t left, int32_t right, int32_t rank, int32_t id) {
    const uint64_t key = key_of(left, right);
    size_t i = slot_of(key);
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
    slots_[i] = {key, rank, id};  // of equal merges the last one counts
  }
  const Entry* find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = slot_of(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return &slots_[i];
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const {
    return static_cast<size_t>(key * 0x9E3779B97F4A7C15ull >> 29) & mask_;
  }
  std::vector<Entry> slots_;
  size_t mask_;
};

/// Neighbours that can merge, the best rank on top.
struct Candidate {
  int32_t rank;
  int32_t left;  // position
  int32_t id;    // of the union
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

class Bpe final : public WordModel {
 public:
  Bpe(const TokenizerData& data, bool keep_bytes)
      : data_(data),
        keep_bytes_(keep_bytes),
        index_(index_pieces(data)),
        bytes_(byte_piece_ids(index_)),
        merges_(data.merges.size()) {
    bool crossing = false;
    std::string piece;
    for (size_t i = 0; i < data.merges.size(); ++i) {
      const Merge& m = data.merges[i];
      piece = m.left + m.right.substr(data.continuing_prefix.size());
      merges_.put(index_.at(m.left), index_.at(m.right), static_cast<int32_t>(i), index_.at(piece));
      crossing = crossing || crosses_space(piece);
    }
    const auto unk = index_.find(data.unk_piece);
    if (!data.unk_piece.empty() && unk != index_.end()) unk_ = unk->second;
    if (keep_bytes) {
      for (size_t b = 0; b < 256; ++b) {
        std::string name;
        append_utf8(name, byte_characters()[b]);
        const auto found = index_.find(name);
        symbol_[b] = found == index_.end() ? -1 : found->second;
      }
    }
    const bool affixes = !data.continuing_prefix.empty() || !data.word_suffix.empty();
    cuts_ = !crossing && !affixes && !data.ignore_merges && !keep_bytes &&
            index_.contains(kSpaceSymbol);
  }

  bool cuts_before_space() const override { return cuts_; }

  void encode(std::string_view word, std::vector<int32_t>& ids) const override {
    if (data_.ignore_merges) {
      if (const int32_t id = whole(word); id >= 0) {
        ids.push_back(id);
        return;
      }
    }
    const size_t first = ids.size();
    if (keep_bytes_) {
      split_bytes(word, ids);
    } else {
      split_chars(word, ids);
    }
    // Short words are searched again after each merge, long ones keep a queue.
    if (ids.size() - first <= 48) {
      merge_short(ids, first);
    } else {
      merge_long(ids, first);
    }
  }

 private:
  int32_t whole(std::string_view word) const {
    std::string name;
    if (keep_bytes_) {
      for (const char c : word) append_utf8(name, byte_characters()[static_cast<uint8_t>(c)]);
      word = name;
    }
    const auto found = index_.find(word);
    return found == index_.end() ? -1 : found->second;
  }

  /// Unknown symbols: one id each, or one for a run of them.
  class Unknowns {
   public:
    Unknowns(int32_t id, bool fuse, std::vector<int32_t>& ids) : id_(id), fuse_(fuse), ids_(ids) {}
    void add() {
      if (id_ < 0) return;
      if (pending_ && !fuse_) ids_.push_back(id_);
      pending_ = true;
    }
    void flush() {
      if (pending_) ids_.push_back(id_);
      pending_ = false;
    }

   private:
    int32_t id_;
    bool fuse_;
    std::vector<int32_t>& ids_;
    bool pending_ = false;
  };

  void split_bytes(std::string_view word, std::vector<int32_t>& ids) const {
    Unknowns unknowns(unk_, data_.fuse_unk, ids);
    for (const char c : word) {
      const int32_t id = symbol_[static_cast<uint8_t>(c)];
      if (id < 0) {
        unknowns.add();
        continue;
      }
      unknowns.flush();
      ids.push_back(id);
    }
    unknowns.flush();
  }

  void split_chars(std::string_view word, std::vector<int32_t>& ids) const {
    Unknowns unknowns(unk_, data_.fuse_unk, ids);
    std::string name;
    for (size_t i = 0; i < word.size();) {
      const size_t length = decode_utf8(word.substr(i)).length;
      std::string_view symbol = word.substr(i, length);
      const bool last = i + length == word.size();
      if ((i > 0 && !data_.continuing_prefix.empty()) || (last && !data_.word_suffix.empty())) {
        name = i > 0 ? data_.continuing_prefix : std::string();
        name += symbol;
        if (last) name += data_.word_suffix;
        symbol = name;
      }
      i += length;
      if (const auto found = index_.find(symbol); found != index_.end()) {
        unknowns.flush();
        ids.push_back(found->second);
      } else if (!data_.byte_fallback || !append_bytes(symbol, ids)) {
        unknowns.add();
      }
    }
    unknowns.flush();
  }

  bool append_bytes(std::string_view symbol, std::vector<int32_t>& ids) const {
    const auto id_of = [this](char c) { return bytes_[static_cast<uint8_t>(c)]; };
    if (!std::all_of(symbol.begin(), symbol.end(), [&](char c) { return id_of(c) >= 0; })) {
      return false;
    }
    for (const char c : symbol) ids.push_back(id_of(c));
    return true;
  }

  void merge_short(std::vector<int32_t>& ids, size_t first) const {
    std::array<int32_t, 48> ranks;
    std::array<int32_t, 48> unions;
    size_t count = ids.size() - first;
    int32_t* const s = ids.data() + first;
    const auto look = [&](size_t i) {
      const auto* e = merges_.find(s[i], s[i + 1]);
      ranks[i] = e == nullptr ? kNoRank : e->rank;
      unions[i] = e == nullptr ? -1 : e->id;
    };
    for (size_t i = 0; i + 1 < count; ++i) look(i);
    while (count > 1) {
      const auto end = ranks.begin() + static_cast<ptrdiff_t>(count - 1);
      const auto best = std::min_element(ranks.begin(), end);
      if (*best == kNoRank) break;
      const auto i = static_cast<size_t>(best - ranks.begin());
      s[i] = unions[i];
      std::copy(s + i + 2, s + count, s + i + 1);
      for (size_t k = i + 1; k + 2 < count; ++k) {
        ranks[k] = ranks[k + 1];
        unions[k] = unions[k + 1];
      }
      --count;
      if (i > 0) look(i - 1);
      if (i + 1 < count) look(i);
    }
    ids.resize(first + count);
  }

  void merge_long(std::vector<int32_t>& ids, size_t first) const {
    const auto count = static_cast<int32_t>(ids.size() - first);
    int32_t* const s = ids.data() + first;  // -1: merged into the left neighbour
    std::vector<int32_t> previous(static_cast<size_t>(count));
    std::vector<int32_t> next(static_cast<size_t>(count));
    std::priority_queue<Candidate> queue;
    const auto offer = [&](int32_t left, int32_t right) {
      if (left < 0 || right >= count) return;
      if (const auto* e = merges_.find(s[left], s[right])) queue.push({e->rank, left, e->id});
    };
    for (int32_t i = 0; i < count; ++i) {
      previous[static_cast<size_t>(i)] = i - 1;
      next[static_cast<size_t>(i)] = i + 1;
    }
    for (int32_t i = 0; i + 1 < count; ++i) offer(i, i + 1);
    while (!queue.empty()) {
      const Candidate top = queue.top();
      queue.pop();
      const auto left = static_cast<size_t>(top.left);
      if (s[left] < 0 || next[left] >= count) continue;
      const auto right = static_cast<size_t>(next[left]);
      const auto* e = merges_.find(s[left], s[right]);
      if (e == nullptr || e->id != top.id) continue;  // outdated
      s[left] = top.id;
      s[right] = -1;
      next[left] = next[right];
      if (next[left] < count) previous[static_cast<size_t>(next[left])] = top.left;
      offer(previous[left], top.left);
      offer(top.left, next[left]);
    }
    ids.erase(std::remove(ids.begin() + static_cast<ptrdiff_t>(first), ids.end(), -1), ids.end());
  }

  const TokenizerData& data_;
  bool keep_bytes_;
  PieceIndex index_;
  std::vector<int32_t> bytes_;
  MergeTable merges_;
  std::array<int32_t, 256> symbol_{};
  int32_t unk_ = -1;
  bool cuts_ = false;
};

}  // namespace

std::unique_ptr<WordModel> make_bpe(const TokenizerData& data, bool keep_bytes) {
  return std::make_unique<Bpe>(data, keep_bytes);
}

}  // namespace narrow::llm
