// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/models.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

[[noreturn]] void corrupt(const std::string& message) {
  throw Error(ErrorCode::corrupt_data, "tokenizer.ggml." + message);
}

int32_t id_or_none(const std::optional<int64_t>& id, size_t count, const char* name) {
  if (!id || *id == -1 || *id == UINT32_MAX) return -1;
  if (*id < 0 || static_cast<uint64_t>(*id) >= count) {
    corrupt(fmt::format("{}: {} is outside the {} tokens", name, *id, count));
  }
  return static_cast<int32_t>(*id);
}

void read_pieces(const TokenizerMetadata& m, TokenizerData& data) {
  if (m.tokens.empty()) corrupt("tokens: no tokens");
  data.pieces = m.tokens;
  if (!m.token_type.empty() && m.token_type.size() != m.tokens.size()) {
    corrupt(
        fmt::format("token_type: {} types for {} tokens", m.token_type.size(), m.tokens.size()));
  }
  for (size_t id = 0; id < m.token_type.size(); ++id) {
    const int32_t type = m.token_type[id];
    if (type < 1 || type > 6) corrupt(fmt::format("token_type: token {}: type {}", id, type));
    data.types.push_back(static_cast<PieceType>(type));
  }
  if (!m.scores.empty() && m.scores.size() != m.tokens.size()) {
    corrupt(fmt::format("scores: {} scores for {} tokens", m.scores.size(), m.tokens.size()));
  }
}

void read_special(const TokenizerMetadata& m, TokenizerData& data) {
  const size_t n = m.tokens.size();
  SpecialIds& s = data.special;
  s.bos = id_or_none(m.bos_token_id, n, "bos_token_id");
  s.eot = id_or_none(m.eot_token_id, n, "eot_token_id");
  s.unk = id_or_none(m.unknown_token_id, n, "unknown_token_id");
  s.sep = id_or_none(m.separator_token_id, n, "seperator_token_id");
  s.pad = id_or_none(m.padding_token_id, n, "padding_token_id");
  s.cls = id_or_none(m.cls_token_id, n, "cls_token_id");
  s.mask = id_or_none(m.mask_token_id, n, "mask_token_id");
  const auto add_end = [&s](int32_t id) {
    if (id >= 0 && std::find(s.eos.begin(), s.eos.end(), id) == s.eos.end()) s.eos.push_back(id);
  };
  add_end(id_or_none(m.eos_token_id, n, "eos_token_id"));
  add_end(s.eot);
  // Chat models end their turns with a token of their own, which the file need not name.
  static constexpr std::string_view kTurnEnds[] = {
      "<|eot_id|>", "<|im_end|>",      "<|end|>", "<end_of_turn>",         "<|endoftext|>",
      "<|eom_id|>", "<|end_of_text|>", "<|eot|>", "<｜end▁of▁sentence｜>",
  };
  for (size_t id = 0; id < data.types.size(); ++id) {
    const bool named = std::find(std::begin(kTurnEnds), std::end(kTurnEnds), data.pieces[id]) !=
                       std::end(kTurnEnds);
    const bool special =
        data.types[id] == PieceType::control || data.types[id] == PieceType::user_defined;
    if (named && special) add_end(static_cast<int32_t>(id));
  }
}

void read_added(TokenizerData& data) {
  for (size_t id = 0; id < data.types.size(); ++id) {
    const PieceType type = data.types[id];
    const bool special = type == PieceType::control || type == PieceType::unknown;
    if (data.pieces[id].empty() || (!special && type != PieceType::user_defined)) continue;
    data.added.push_back({static_cast<int32_t>(id), data.pieces[id], special});
  }
}

void read_scores(const TokenizerMetadata& m, TokenizerData& data) {
  if (m.scores.empty()) corrupt("scores: absent");
  data.scores.assign(m.scores.begin(), m.scores.end());
  if (data.types.empty()) corrupt("token_type: absent");
  if (data.special.unk < 0 && m.model == "llama") data.special.unk = 0;
  if (data.special.unk >= 0) {
    // Some files mark it as control: only the id says it.
    data.types[static_cast<size_t>(data.special.unk)] = PieceType::unknown;
  }
  const PieceIndex index = index_pieces(data);
  data.byte_fallback = index.contains(piece_of_byte(0)) && index.contains(piece_of_byte(255));
}

void put_around(TokenizerData& data, bool bos, bool eos) {
  if (bos && data.special.bos >= 0) data.prefix_ids = {data.special.bos};
  if (eos && !data.special.eos.empty()) data.suffix_ids = {data.special.eos.front()};
}

std::vector<DecoderStep> sentencepiece_decoder(bool space_prefix) {
  DecoderStep spaces{DecoderStep::Kind::sentencepiece};
  spaces.start = space_prefix ? 1 : 0;
  return {spaces, {DecoderStep::Kind::byte_fallback}};
}

/// SentencePiece BPE: each stretch of text between tokens gets a space before it.
void read_llama(const TokenizerMetadata& m, TokenizerData& data) {
  data.model = TokenizerModel::spm_bpe;
  read_scores(m, data);
  const bool prefix = m.add_space_prefix.value_or(true);
  NormalizerStep s{NormalizerStep::Kind::sentencepiece};
  s.add_dummy_prefix = prefix;
  data.normalizer = {s};
  data.decoder = sentencepiece_decoder(prefix);
  put_around(data, m.add_bos_token.value_or(true), m.add_eos_token.value_or(false));
}

void read_t5(const TokenizerMetadata& m, TokenizerData& data) {
  data.model = TokenizerModel::spm_unigram;
  read_scores(m, data);
  const bool prefix = m.add_space_prefix.value_or(true);
  NormalizerStep s{NormalizerStep::Kind::sentencepiece};
  s.add_dummy_prefix = prefix;
  s.remove_extra_whitespaces = m.remove_extra_whitespaces.value_or(false);
  s.charsmap = m.precompiled_charsmap;
  data.normalizer = {s};
  data.decoder = sentencepiece_decoder(prefix);
  // A text that was normalized so has no space at its start.
  if (s.remove_extra_whitespaces) data.decoder.front().start = INT32_MAX;
  put_around(data, m.add_bos_token.value_or(false), m.add_eos_token.value_or(true));
}

const PreTokenizerRow& row_of(const std::string& name) {
  const auto& rows = pre_tokenizer_rows();
  // Files from before the key existed.
  const std::string_view wanted = name.empty() ? "default" : std::string_view(name);
  std::string known;
  for (const PreTokenizerRow& row : rows) {
    if (row.name == wanted) return row;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
  }
  throw Error(ErrorCode::unsupported,
              fmt::format("tokenizer.ggml.pre: the pre-tokenizer '{}' is not known", name),
              "known are " + known);
}

void read_gpt2(const TokenizerMetadata& m, TokenizerData& data) {
  data.model = TokenizerModel::bpe;
  const PreTokenizerRow& row = row_of(m.pre);
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < m.merges.size(); ++i) {
    const std::string& merge = m.merges[i];
    // The first character may be a space of a piece that is no stand-in.
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) corrupt(fmt::format("merges: merge {} is no pair", i));
    // Of equal merges the first one counts.
    if (seen.insert(merge).second) {
      data.merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
    }
  }
  data.ignore_merges = row.ignore_merges;
  for (const std::string_view expression : row.expressions) {
    PreTokenizerStep s{PreTokenizerStep::Kind::split};
    s.pattern = expression;
    s.is_regex = true;
    data.pre_tokenizer.push_back(s);
  }
  data.pre_tokenizer.push_back({PreTokenizerStep::Kind::byte_level});
  data.decoder = {{DecoderStep::Kind::byte_level}};
  put_around(data, m.add_bos_token.value_or(row.add_bos), m.add_eos_token.value_or(false));
}

/// WordPiece: GGUF marks the start of words with U+2581 instead of continuations with "##".
void read_bert(const TokenizerMetadata& m, TokenizerData& data) {
  data.model = TokenizerModel::wordpiece;
  data.word_prefix = kSpaceSymbol;
  if (data.special.unk < 0) corrupt("unknown_token_id: absent");
  data.unk_piece = data.pieces[static_cast<size_t>(data.special.unk)];
  NormalizerStep s{NormalizerStep::Kind::bert};
  s.clean_text = s.chinese_chars = s.strip_accents = s.lowercase = true;
  data.normalizer = {s};
  data.pre_tokenizer = {{PreTokenizerStep::Kind::bert}};
  DecoderStep strip{DecoderStep::Kind::strip, "", " "};
  strip.start = 1;
  data.decoder = {{DecoderStep::Kind::replace, std::string(kSpaceSymbol), " "},
                  {DecoderStep::Kind::fuse},
                  strip};
  const int32_t first = data.special.cls >= 0 ? data.special.cls : data.special.bos;
  if (m.add_bos_token.value_or(true) && first >= 0) data.prefix_ids = {first};
  if (m.add_sep_token.value_or(m.add_eos_token.value_or(true)) && data.special.sep >= 0) {
    data.suffix_ids = {data.special.sep};
  }
}

}  // namespace

TokenizerData tokenizer_data_from_gguf(const TokenizerMetadata& metadata) {
  TokenizerData data;
  static constexpr std::string_view kModels[] = {"llama", "gpt2", "bert", "t5"};
  if (std::find(std::begin(kModels), std::end(kModels), metadata.model) == std::end(kModels)) {
    throw Error(ErrorCode::unsupported,
                fmt::format("tokenizer.ggml.model: '{}' is not known", metadata.model),
                "known are llama, gpt2, bert, t5");
  }
  read_pieces(metadata, data);
  read_special(metadata, data);
  if (metadata.model == "llama") read_llama(metadata, data);
  if (metadata.model == "gpt2") read_gpt2(metadata, data);
  if (metadata.model == "bert") read_bert(metadata, data);
  if (metadata.model == "t5") read_t5(metadata, data);
  read_added(data);
  data.chat_template = metadata.chat_template;
  return data;
}

}  // namespace narrow::llm
