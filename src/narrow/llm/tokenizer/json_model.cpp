// SPDX-License-Identifier: Apache-2.0
// The model and the added tokens of tokenizer.json.
#include <fmt/format.h>

#include <unordered_map>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/json_parts.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm::json_parts {
namespace {

/// {"piece": id, ..}: every id below the number of pieces once, holes only where added tokens fill
/// them. A hole is an empty optional place until then.
void read_vocab(const Json& vocab, TokenizerData& data, std::vector<bool>& filled) {
  if (!vocab.is_object() || vocab.empty()) corrupt("model: vocab", "is no object with pieces");
  // Holes can only be as many as there are pieces: otherwise the ids are wrong.
  const size_t most = 2 * vocab.size() + 1024;
  for (const auto& [piece, value] : vocab.items()) {
    const auto id = static_cast<size_t>(id_of(value, "model: vocab"));
    if (id >= most) corrupt("model: vocab", fmt::format("piece {} is beyond a hole", id));
    if (id >= data.pieces.size()) {
      data.pieces.resize(id + 1);
      filled.resize(id + 1);
    }
    if (filled[id]) corrupt("model: vocab", fmt::format("the id {} is there twice", id));
    filled[id] = true;
    data.pieces[id] = piece;
  }
}

void read_merges(const Json& merges, TokenizerData& data) {
  if (!merges.is_array()) corrupt("model: merges", "is no list");
  data.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const Json& m = merges[i];
    if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
      data.merges.push_back({m[0].get<std::string>(), m[1].get<std::string>()});
      continue;
    }
    const std::string text = m.is_string() ? m.get<std::string>() : "";
    const size_t space = text.find(' ');
    if (space == std::string::npos) {
      corrupt(fmt::format("model: merge {}", i), "is no pair of pieces");
    }
    data.merges.push_back({text.substr(0, space), text.substr(space + 1)});
  }
}

void read_bpe(const Json& part, TokenizerData& data, std::vector<bool>& filled) {
  data.model = TokenizerModel::bpe;
  if (part.contains("dropout") && !part["dropout"].is_null()) {
    const Json& dropout = part["dropout"];
    if (!dropout.is_number() || dropout.get<double>() != 0)
      unsupported("model", "BPE with dropout");
  }
  read_vocab(member(part, "vocab", "model"), data, filled);
  read_merges(member(part, "merges", "model"), data);
  data.continuing_prefix = text_or(part, "continuing_subword_prefix", "", "model");
  data.word_suffix = text_or(part, "end_of_word_suffix", "", "model");
  data.unk_piece = text_or(part, "unk_token", "", "model");
  data.fuse_unk = bool_or(part, "fuse_unk", false, "model");
  data.byte_fallback = bool_or(part, "byte_fallback", false, "model");
  data.ignore_merges = bool_or(part, "ignore_merges", false, "model");
}

void read_unigram(const Json& part, TokenizerData& data, std::vector<bool>& filled) {
  data.model = TokenizerModel::unigram;
  const Json& vocab = member(part, "vocab", "model");
  if (!vocab.is_array() || vocab.empty()) corrupt("model: vocab", "is no list with pieces");
  for (size_t id = 0; id < vocab.size(); ++id) {
    const Json& entry = vocab[id];
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      corrupt(fmt::format("model: piece {}", id), "is no pair of a text and a score");
    }
    data.pieces.push_back(entry[0].get<std::string>());
    data.scores.push_back(entry[1].get<double>());
  }
  filled.assign(data.pieces.size(), true);
  if (part.contains("unk_id") && !part["unk_id"].is_null()) {
    data.special.unk = id_of(part["unk_id"], "model: unk_id");
  }
  data.byte_fallback = bool_or(part, "byte_fallback", false, "model");
}

void read_wordpiece(const Json& part, TokenizerData& data, std::vector<bool>& filled) {
  data.model = TokenizerModel::wordpiece;
  read_vocab(member(part, "vocab", "model"), data, filled);
  data.unk_piece = text_or(part, "unk_token", "[UNK]", "model");
  data.continuing_prefix = text_or(part, "continuing_subword_prefix", "##", "model");
  data.max_word_chars = 100;
  if (part.contains("max_input_chars_per_word")) {
    data.max_word_chars =
        id_of(part["max_input_chars_per_word"], "model: max_input_chars_per_word");
    if (data.max_word_chars == 0) corrupt("model", "max_input_chars_per_word is 0");
  }
}

/// Older files have no type: the members say which model it is.
std::string model_type(const Json& part) {
  if (part.is_object() && part.contains("type")) return type_of_part(part, "model");
  if (part.is_object() && part.contains("merges")) return "BPE";
  if (part.is_object() && part.contains("unk_id")) return "Unigram";
  return "WordPiece";
}

AddedToken added_token(const Json& item) {
  constexpr std::string_view kWhere = "added_tokens";
  AddedToken a;
  a.id = id_of(member(item, "id", kWhere), kWhere);
  a.content = text_of(item, "content", kWhere);
  a.special = bool_or(item, "special", false, kWhere);
  a.lstrip = bool_or(item, "lstrip", false, kWhere);
  a.rstrip = bool_or(item, "rstrip", false, kWhere);
  a.normalized = bool_or(item, "normalized", !a.special, kWhere);
  a.single_word = bool_or(item, "single_word", false, kWhere);
  return a;
}

}  // namespace

void read_model(const Json& part, TokenizerData& data) {
  std::vector<bool> filled;
  const std::string type = model_type(part);
  if (type == "BPE") {
    read_bpe(part, data, filled);
  } else if (type == "Unigram") {
    read_unigram(part, data, filled);
  } else if (type == "WordPiece") {
    read_wordpiece(part, data, filled);
  } else {
    unsupported("model", type);
  }
  for (size_t id = 0; id < filled.size(); ++id) {
    if (!filled[id]) corrupt("model: vocab", fmt::format("no piece has the id {}", id));
  }
  data.model_size = static_cast<int32_t>(data.pieces.size());
}

void read_added_tokens(const Json& part, TokenizerData& data) {
  if (part.is_null()) return;
  if (!part.is_array()) corrupt("added_tokens", "is no list");
  std::unordered_map<std::string, int32_t> index;
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    index.emplace(data.pieces[id], static_cast<int32_t>(id));
  }
  for (const Json& item : part) {
    AddedToken a = added_token(item);
    if (a.content.empty()) continue;  // `tokenizers` ignores it as well
    const auto id = static_cast<size_t>(a.id);
    const auto found = index.find(a.content);
    if (found != index.end() ? found->second != a.id : id != data.pieces.size()) {
      corrupt("added_tokens", fmt::format("'{}' has the id {}, expected was {}", a.content, a.id,
                                          found != index.end() ? static_cast<size_t>(found->second)
                                                               : data.pieces.size()));
    }
    if (found == index.end()) {
      index.emplace(a.content, a.id);
      data.pieces.push_back(a.content);
      if (!data.scores.empty()) data.scores.push_back(0);
    }
    data.added.push_back(std::move(a));
  }
}

}  // namespace narrow::llm::json_parts
