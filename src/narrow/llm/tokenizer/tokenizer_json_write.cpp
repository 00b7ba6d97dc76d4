// SPDX-License-Identifier: Apache-2.0
// tokenizer.json from the data of tokenizers that came from elsewhere: GGUF and SentencePiece.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <unordered_set>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/json_parts.h"
#include "narrow/llm/tokenizer/models.h"
#include "narrow/llm/tokenizer/tokenizer_json.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

using json_parts::Json;

[[noreturn]] void inexpressible(const std::string& what) {
  throw Error(ErrorCode::unsupported, "tokenizer.json cannot be written: " + what);
}

Json sequence(const char* type, const char* member, std::vector<Json> parts) {
  if (parts.empty()) return nullptr;
  if (parts.size() == 1) return parts.front();
  return {{"type", type}, {member, parts}};
}

std::string base64(std::string_view bytes) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) {
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0U);
    }
    for (size_t k = 0; k < 4; ++k) {
      out += i + k <= bytes.size() ? kDigits[bits >> (18 - 6 * k) & 63] : '=';
    }
  }
  return out;
}

// --- normalizer, pre-tokenizer, decoder ----------------------------------------------------------

Json replace(const char* kind, const std::string& pattern, std::string_view content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}

/// SentencePiece's normalizer, said in steps of `tokenizers`.
void append_sentencepiece(const NormalizerStep& s, std::vector<Json>& parts) {
  if (!s.charsmap.empty()) {
    parts.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", base64(s.charsmap)}});
  }
  const std::string space(kSpaceSymbol);
  if (s.remove_extra_whitespaces) {
    // Not Strip, which takes line breaks too.
    parts.push_back(replace("Regex", "\\A +", ""));
    parts.push_back(replace("Regex", " {2,}", " "));
  }
  parts.push_back(replace("String", " ", space));
  if (s.remove_extra_whitespaces) parts.push_back(replace("Regex", space + "+\\z", ""));
  if (s.add_dummy_prefix) parts.push_back({{"type", "Prepend"}, {"prepend", space}});
}

Json normalizer_json(const TokenizerData& data) {
  std::vector<Json> parts;
  for (const NormalizerStep& s : data.normalizer) {
    if (s.kind == NormalizerStep::Kind::sentencepiece) {
      append_sentencepiece(s, parts);
    } else if (s.kind == NormalizerStep::Kind::bert) {
      parts.push_back({{"type", "BertNormalizer"},
                       {"clean_text", s.clean_text},
                       {"handle_chinese_chars", s.chinese_chars},
                       {"strip_accents", s.strip_accents},
                       {"lowercase", s.lowercase}});
    } else {
      inexpressible("a normalizer that is neither SentencePiece's nor BERT's");
    }
  }
  return sequence("Sequence", "normalizers", std::move(parts));
}

Json pre_tokenizer_json(const TokenizerData& data) {
  using Kind = PreTokenizerStep::Kind;
  std::vector<Json> parts;
  for (const PreTokenizerStep& s : data.pre_tokenizer) {
    if (s.kind == Kind::split) {
      if (s.behavior != SplitBehavior::isolated) inexpressible("a Split that isolates nothing");
      parts.push_back({{"type", "Split"},
                       {"pattern", {{s.is_regex ? "Regex" : "String", s.pattern}}},
                       {"behavior", "Isolated"},
                       {"invert", s.invert}});
    } else if (s.kind == Kind::byte_level) {
      parts.push_back({{"type", "ByteLevel"},
                       {"add_prefix_space", s.add_prefix_space},
                       {"trim_offsets", true},
                       {"use_regex", s.use_regex}});
    } else if (s.kind == Kind::bert) {
      parts.push_back({{"type", "BertPreTokenizer"}});
    } else {
      inexpressible("a pre-tokenizer that GGUF files do not have");
    }
  }
  return sequence("Sequence", "pretokenizers", std::move(parts));
}

Json decoder_json(const TokenizerData& data) {
  if (data.model == TokenizerModel::wordpiece) {
    return {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", false}};
  }
  if (data.model == TokenizerModel::bpe) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}};
  }
  std::vector<Json> parts = {replace("String", std::string(kSpaceSymbol), " "),
                             {{"type", "ByteFallback"}},
                             {{"type", "Fuse"}}};
  for (const DecoderStep& s : data.decoder) {
    if (s.kind != DecoderStep::Kind::sentencepiece || s.start == 0) continue;
    constexpr int kMost = 1 << 16;
    parts.push_back(
        {{"type", "Strip"}, {"content", " "}, {"start", std::min(s.start, kMost)}, {"stop", 0}});
  }
  return sequence("Sequence", "decoders", std::move(parts));
}

// --- the template around a text ------------------------------------------------------------------

Json post_processor_json(const TokenizerData& data, const std::vector<std::string>& pieces) {
  if (data.prefix_ids.empty() && data.suffix_ids.empty()) {
    if (data.model != TokenizerModel::bpe) return nullptr;
    return {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", false},
            {"use_regex", true}};
  }
  Json tokens = Json::object();
  const auto append = [&](Json& list, const std::vector<int32_t>& ids, int type) {
    for (const int32_t id : ids) {
      const std::string& piece = pieces[static_cast<size_t>(id)];
      list.push_back({{"SpecialToken", {{"id", piece}, {"type_id", type}}}});
      tokens[piece] = {{"id", piece}, {"ids", Json::array({id})}, {"tokens", Json::array({piece})}};
    }
  };
  const auto text = [](const char* name, int type) {
    return Json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  Json single = Json::array();
  append(single, data.prefix_ids, 0);
  single.push_back(text("A", 0));
  append(single, data.suffix_ids, 0);
  Json pair = single;
  // BERT has one [CLS] for both texts.
  if (data.model != TokenizerModel::wordpiece) append(pair, data.prefix_ids, 1);
  pair.push_back(text("B", 1));
  append(pair, data.suffix_ids, 1);
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(tokens)}};
}

// --- models --------------------------------------------------------------------------------------

Json vocab_json(const std::vector<std::string>& pieces) {
  Json vocab = Json::object();
  for (size_t id = 0; id < pieces.size(); ++id) vocab[pieces[id]] = id;
  return vocab;
}

Json bpe_json(const TokenizerData& data, std::vector<Merge> merges) {
  Json list = Json::array();
  for (Merge& m : merges) list.push_back(Json::array({std::move(m.left), std::move(m.right)}));
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", data.unk_piece.empty() ? Json() : Json(data.unk_piece)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", data.fuse_unk},
          {"byte_fallback", data.byte_fallback},
          {"ignore_merges", data.ignore_merges},
          {"vocab", vocab_json(data.pieces)},
          {"merges", std::move(list)}};
}

/// SentencePiece joins the neighbours whose union scores best; in `tokenizers` pairs have ranks. So
/// every pair that makes a piece gets a merge, pieces with better scores first.
std::vector<Merge> merges_of_scores(const TokenizerData& data) {
  const PieceIndex index = index_pieces(data);
  const auto mergeable = [&](std::string_view piece) {
    const auto found = index.find(piece);
    return found != index.end() && is_reachable(data, static_cast<size_t>(found->second));
  };
  std::vector<size_t> order;
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    if (is_reachable(data, id)) order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return data.scores[a] > data.scores[b]; });
  std::vector<Merge> merges;
  for (const size_t id : order) {
    const std::string_view piece = data.pieces[id];
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      const bool inside = (static_cast<uint8_t>(piece[cut]) & 0xC0U) == 0x80U;  // of a character
      if (inside) continue;
      const std::string_view left = piece.substr(0, cut);
      const std::string_view right = piece.substr(cut);
      if (mergeable(left) && mergeable(right)) {
        merges.push_back({std::string(left), std::string(right)});
      }
    }
  }
  return merges;
}

Json spm_bpe_json(TokenizerData data) {
  data.fuse_unk = true;
  if (data.special.unk >= 0) data.unk_piece = data.pieces[static_cast<size_t>(data.special.unk)];
  std::vector<Merge> merges = merges_of_scores(data);
  return bpe_json(data, std::move(merges));
}

Json unigram_json(const TokenizerData& data) {
  if (data.special.unk < 0) inexpressible("a unigram model without an unknown piece");
  Json vocab = Json::array();
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    vocab.push_back(Json::array({data.pieces[id], data.scores[id]}));
  }
  return {{"type", "Unigram"},
          {"unk_id", data.special.unk},
          {"vocab", std::move(vocab)},
          {"byte_fallback", data.byte_fallback}};
}

/// GGUF marks the pieces that start a word, tokenizer.json those that do not.
std::vector<std::string> wordpieces(const TokenizerData& data) {
  if (data.word_prefix.empty()) return data.pieces;
  std::unordered_set<std::string> seen;
  std::vector<std::string> pieces = data.pieces;
  for (size_t id = 0; id < pieces.size(); ++id) {
    std::string& piece = pieces[id];
    const PieceType type = type_of(data, id);
    const bool special =
        (type != PieceType::normal) || (piece.starts_with('[') && piece.ends_with(']'));
    if (piece.starts_with(data.word_prefix)) {
      piece.erase(0, data.word_prefix.size());
    } else if (!special) {
      piece.insert(0, "##");
    }
    if (!seen.insert(piece).second) inexpressible("two pieces would be '" + piece + "'");
  }
  return pieces;
}

Json wordpiece_json(const TokenizerData& data, const std::vector<std::string>& pieces) {
  return {{"type", "WordPiece"},
          {"unk_token", data.unk_piece},
          {"continuing_subword_prefix", "##"},
          {"max_input_chars_per_word", data.max_word_chars > 0 ? data.max_word_chars : INT32_MAX},
          {"vocab", vocab_json(pieces)}};
}

Json model_json(const TokenizerData& data, const std::vector<std::string>& pieces) {
  switch (data.model) {
    case TokenizerModel::bpe:
      return bpe_json(data, data.merges);
    case TokenizerModel::spm_bpe:
      return spm_bpe_json(data);
    case TokenizerModel::unigram:
    case TokenizerModel::spm_unigram:
      return unigram_json(data);
    case TokenizerModel::wordpiece:
      return wordpiece_json(data, pieces);
  }
  return nullptr;
}

Json added_tokens_json(const TokenizerData& data, const std::vector<std::string>& pieces) {
  std::vector<const AddedToken*> order;
  for (const AddedToken& a : data.added) order.push_back(&a);
  // SentencePiece finds these in its text too; here only tokens outside of the model can.
  std::vector<AddedToken> defined;
  defined.reserve(data.types.size());
  for (size_t id = 0; id < data.types.size(); ++id) {
    const bool known = std::any_of(data.added.begin(), data.added.end(), [&](const AddedToken& a) {
      return a.id == static_cast<int32_t>(id);
    });
    if (data.types[id] != PieceType::user_defined || known) continue;
    defined.push_back({static_cast<int32_t>(id), data.pieces[id]});
    order.push_back(&defined.back());
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const AddedToken* a, const AddedToken* b) { return a->id < b->id; });
  Json list = Json::array();
  for (const AddedToken* a : order) {
    list.push_back({{"id", a->id},
                    {"content", pieces[static_cast<size_t>(a->id)]},
                    {"single_word", a->single_word},
                    {"lstrip", a->lstrip},
                    {"rstrip", a->rstrip},
                    {"normalized", a->normalized},
                    {"special", a->special}});
  }
  return list;
}

std::string dumped(const Json& json) {
  try {
    return json.dump() + "\n";
  } catch (const Json::exception&) {
    inexpressible("a piece is not UTF-8");
  }
}

}  // namespace

std::string tokenizer_json(const TokenizerData& data) {
  const bool plain = data.model == TokenizerModel::bpe || data.model == TokenizerModel::unigram;
  const bool byte_level =
      std::any_of(data.pre_tokenizer.begin(), data.pre_tokenizer.end(),
                  [](const auto& s) { return s.kind == PreTokenizerStep::Kind::byte_level; });
  if (plain && !byte_level) inexpressible("this model came from a tokenizer.json: copy that");
  const std::vector<std::string> pieces =
      data.model == TokenizerModel::wordpiece ? wordpieces(data) : data.pieces;
  return dumped({{"version", "1.0"},
                 {"truncation", nullptr},
                 {"padding", nullptr},
                 {"added_tokens", added_tokens_json(data, pieces)},
                 {"normalizer", normalizer_json(data)},
                 {"pre_tokenizer", pre_tokenizer_json(data)},
                 {"post_processor", post_processor_json(data, pieces)},
                 {"decoder", decoder_json(data)},
                 {"model", model_json(data, pieces)}});
}

std::string tokenizer_config_json(const TokenizerData& data, int64_t context) {
  Json json{{"tokenizer_class", "PreTrainedTokenizerFast"},
            {"clean_up_tokenization_spaces", false},
            {"model_max_length", context}};
  const auto name = [&](const char* key, int32_t id) {
    if (id >= 0) json[key] = data.pieces[static_cast<size_t>(id)];
  };
  const SpecialIds& s = data.special;
  name("bos_token", s.bos);
  name("eos_token", s.eos.empty() ? -1 : s.eos.front());
  name("unk_token", s.unk);
  name("pad_token", s.pad);
  name("sep_token", s.sep);
  name("cls_token", s.cls);
  name("mask_token", s.mask);
  if (!data.chat_template.empty()) json["chat_template"] = data.chat_template;
  return dumped(json);
}

}  // namespace narrow::llm
