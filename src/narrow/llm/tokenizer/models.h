// SPDX-License-Identifier: Apache-2.0
// The models of tokenizers: each turns one word into ids. They do not change after construction.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "narrow/llm/tokenizer/tokenizer_data.h"

namespace narrow::llm {

using PieceIndex = std::unordered_map<std::string_view, int32_t>;

class WordModel {
 public:
  virtual ~WordModel() = default;
  /// Appends the ids of a word that is not empty.
  virtual void encode(std::string_view word, std::vector<int32_t>& ids) const = 0;
  /// The ids of a word depend on nothing but the word, so that they may be remembered.
  virtual bool is_cacheable() const { return true; }
  /// No piece goes over a U+2581 that follows another character: the text may be cut before it.
  virtual bool cuts_before_space() const { return false; }
};

/// `data` must outlive the model. keep_bytes: words are bytes, not their printable stand-ins.
std::unique_ptr<WordModel> make_bpe(const TokenizerData& data, bool keep_bytes);
std::unique_ptr<WordModel> make_spm_bpe(const TokenizerData& data);
std::unique_ptr<WordModel> make_unigram(const TokenizerData& data);
std::unique_ptr<WordModel> make_wordpiece(const TokenizerData& data);

/// How many pieces belong to the model itself.
size_t model_size(const TokenizerData& data);
/// Their ids by text.
PieceIndex index_pieces(const TokenizerData& data);
PieceType type_of(const TokenizerData& data, size_t id);
/// True where text may come out as this piece: not control, unknown or byte.
bool is_reachable(const TokenizerData& data, size_t id);
/// U+2581 inside the piece behind another character.
bool crosses_space(std::string_view piece);

/// The ids of <0x00>..<0xFF>, -1 where absent.
std::vector<int32_t> byte_piece_ids(const PieceIndex& index);

}  // namespace narrow::llm
