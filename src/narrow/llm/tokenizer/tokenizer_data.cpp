// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/tokenizer_data.h"

#include <fmt/format.h>

#include <cmath>
#include <unordered_set>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/models.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

constexpr size_t kMaxPieces = size_t{1} << 24;
constexpr size_t kMaxPieceBytes = size_t{1} << 28;

[[noreturn]] void corrupt(std::string message) {
  throw Error(ErrorCode::corrupt_data, "tokenizer: " + std::move(message));
}

bool is_scored(TokenizerModel model) {
  return model == TokenizerModel::spm_bpe || model == TokenizerModel::unigram ||
         model == TokenizerModel::spm_unigram;
}

/// A piece from a file, fit for a message.
std::string quoted(std::string_view piece) {
  return "'" + replace_invalid_utf8(piece.substr(0, 60)) + "'";
}

void check_pieces(const TokenizerData& data) {
  if (data.pieces.empty()) corrupt("no pieces");
  if (data.pieces.size() > kMaxPieces) corrupt("more than 2^24 pieces");
  if (data.model_size > static_cast<int64_t>(data.pieces.size()) || data.model_size < -1) {
    corrupt(fmt::format("the model has {} pieces of {}", data.model_size, data.pieces.size()));
  }
  size_t bytes = 0;
  std::unordered_set<std::string_view> seen;
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    bytes += data.pieces[id].size();
    if (bytes > kMaxPieceBytes) corrupt("pieces of more than 256 MiB");
    if (!seen.insert(data.pieces[id]).second) {
      corrupt(fmt::format("piece {} ({}) is there twice", id, quoted(data.pieces[id])));
    }
  }
  if (!data.types.empty() && data.types.size() != data.pieces.size()) {
    corrupt(fmt::format("{} types for {} pieces", data.types.size(), data.pieces.size()));
  }
  for (size_t id = 0; id < data.types.size(); ++id) {
    const int type = static_cast<int>(data.types[id]);
    if (type < 1 || type > 6) corrupt(fmt::format("piece {}: unknown type {}", id, type));
  }
}

void check_scores(const TokenizerData& data) {
  if (!is_scored(data.model)) return;
  if (data.scores.size() != data.pieces.size()) {
    corrupt(fmt::format("{} scores for {} pieces", data.scores.size(), data.pieces.size()));
  }
  for (size_t id = 0; id < data.scores.size(); ++id) {
    // In float, as SentencePiece keeps them: a sum of a whole text must not overflow either.
    if (!(std::abs(data.scores[id]) <= 1e30)) {
      corrupt(fmt::format("piece {}: the score {} is no usable number", id, data.scores[id]));
    }
  }
}

void check_merges(const TokenizerData& data, const PieceIndex& index) {
  for (size_t i = 0; i < data.merges.size(); ++i) {
    const Merge& m = data.merges[i];
    const auto need = [&](std::string_view piece) {
      if (!index.contains(piece)) {
        corrupt(fmt::format("merge {} ({} {}): {} is no piece", i, quoted(m.left), quoted(m.right),
                            quoted(piece)));
      }
    };
    need(m.left);
    need(m.right);
    if (m.left.empty() || m.right.empty() || !m.right.starts_with(data.continuing_prefix)) {
      corrupt(fmt::format("merge {} ({} {}) does not join two pieces", i, quoted(m.left),
                          quoted(m.right)));
    }
    need(m.left + m.right.substr(data.continuing_prefix.size()));
  }
}

void check_ids(const TokenizerData& data) {
  const auto check_id = [&](int32_t id, std::string_view what, bool optional) {
    if (id == -1 && optional) return;
    if (id < 0 || static_cast<size_t>(id) >= data.pieces.size()) {
      corrupt(fmt::format("{} is {}, outside the {} pieces", what, id, data.pieces.size()));
    }
  };
  const SpecialIds& s = data.special;
  check_id(s.bos, "the id of bos", true);
  check_id(s.unk, "the id of unk", true);
  check_id(s.pad, "the id of pad", true);
  check_id(s.sep, "the id of sep", true);
  check_id(s.cls, "the id of cls", true);
  check_id(s.mask, "the id of mask", true);
  check_id(s.eot, "the id of eot", true);
  for (const int32_t id : s.eos) check_id(id, "an id of eos", false);
  for (const int32_t id : data.prefix_ids) check_id(id, "an id before the text", false);
  for (const int32_t id : data.suffix_ids) check_id(id, "an id after the text", false);
  for (const AddedToken& a : data.added) {
    check_id(a.id, fmt::format("the id of the added token {}", quoted(a.content)), false);
    if (a.content.empty()) corrupt(fmt::format("the added token {} is empty", a.id));
  }
}

void check_unknown(const TokenizerData& data, const PieceIndex& index) {
  const bool spm =
      data.model == TokenizerModel::spm_bpe || data.model == TokenizerModel::spm_unigram;
  bool has_unknown = false;
  for (size_t id = 0; id < model_size(data); ++id) {
    has_unknown = has_unknown || type_of(data, id) == PieceType::unknown;
  }
  if (spm && !has_unknown && !data.byte_fallback) corrupt("no unknown piece, and no bytes");
  if (spm && data.byte_fallback) {
    for (int b = 0; b < 256; ++b) {
      const std::string piece = piece_of_byte(static_cast<uint8_t>(b));
      if (!index.contains(piece)) corrupt(fmt::format("the piece {} of a byte is absent", piece));
    }
  }
  if (data.model == TokenizerModel::unigram && data.special.unk < 0) corrupt("no unknown piece");
  const bool needs_piece = data.model == TokenizerModel::wordpiece || !data.unk_piece.empty();
  if (needs_piece && !spm && !index.contains(data.unk_piece)) {
    corrupt(fmt::format("the unknown piece {} is absent", quoted(data.unk_piece)));
  }
}

}  // namespace

void check(const TokenizerData& data) {
  check_pieces(data);
  check_scores(data);
  const PieceIndex index = index_pieces(data);
  check_merges(data, index);
  check_ids(data);
  check_unknown(data, index);
  for (const PreTokenizerStep& s : data.pre_tokenizer) {
    if (s.kind != PreTokenizerStep::Kind::metaspace) continue;
    const bool one = !s.replacement.empty() && is_valid_utf8(s.replacement) &&
                     decode_utf8(s.replacement).length == s.replacement.size();
    if (!one) corrupt("the replacement of Metaspace is not one character");
  }
}

int byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  const int high = digit(piece[3]);
  const int low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::string piece_of_byte(uint8_t byte) {
  return fmt::format("<0x{:02X}>", byte);
}

size_t model_size(const TokenizerData& data) {
  return data.model_size < 0 ? data.pieces.size() : static_cast<size_t>(data.model_size);
}

PieceIndex index_pieces(const TokenizerData& data) {
  PieceIndex index;
  const size_t count = model_size(data);
  index.reserve(count);
  for (size_t id = 0; id < count; ++id) {
    index.emplace(data.pieces[id], static_cast<int32_t>(id));
  }
  return index;
}

PieceType type_of(const TokenizerData& data, size_t id) {
  return data.types.empty() ? PieceType::normal : data.types[id];
}

bool is_reachable(const TokenizerData& data, size_t id) {
  const PieceType type = type_of(data, id);
  return type == PieceType::normal || type == PieceType::user_defined || type == PieceType::unused;
}

bool crosses_space(std::string_view piece) {
  for (size_t at = 0; (at = piece.find(kSpaceSymbol, at)) != std::string_view::npos;
       at += kSpaceSymbol.size()) {
    if (at > 0 && !piece.substr(0, at).ends_with(kSpaceSymbol)) return true;
  }
  return false;
}

std::vector<int32_t> byte_piece_ids(const PieceIndex& index) {
  std::vector<int32_t> ids(256, -1);
  for (size_t b = 0; b < 256; ++b) {
    const auto found = index.find(piece_of_byte(static_cast<uint8_t>(b)));
    if (found != index.end()) ids[b] = found->second;
  }
  return ids;
}

}  // namespace narrow::llm
