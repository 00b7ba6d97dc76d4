// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/pre_tokenizer.h"
#include "narrow/llm/tokenizer/tokenizer.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

/// Where the known ways to cut text differ: contractions in both cases, runs of digits, signs and
/// white space, scripts with and without capitals, characters outside the first plane.
constexpr std::string_view kProbe =
    "Hello World, it's 3.14159 or 1234567 -- WE'LL see.  I'M here;DON'T   go\n\n\tThere are 12 "
    "(or 42?) cafés… 你好,世界 2024年! Привет МИР; "
    "안녕하세요 \r\n  ¿Qué? <<a_b>> $x^2+y=z~|` \"quoted\" "
    "😀🚀 camelCaseWords HTTPServer naïve\n \n   x //\n/* end */  ";

PieceType type_of(const TokenizerData& data, int32_t id) {
  const auto i = static_cast<size_t>(id);
  if (!data.types.empty() && i < data.types.size()) return data.types[i];
  return PieceType::normal;
}

/// Tokens, their types, the special ids: what all models share.
TokenizerMetadata common(const TokenizerData& data, int64_t vocab_size) {
  if (static_cast<int64_t>(data.pieces.size()) > vocab_size) {
    throw Error(ErrorCode::corrupt_data,
                fmt::format("the tokenizer has {} tokens, the model's vocab_size is {}",
                            data.pieces.size(), vocab_size));
  }
  TokenizerMetadata m;
  m.tokens = data.pieces;
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    m.token_type.push_back(static_cast<int32_t>(type_of(data, static_cast<int32_t>(id))));
  }
  for (const AddedToken& added : data.added) {
    const PieceType type = added.special ? PieceType::control : PieceType::user_defined;
    m.token_type[static_cast<size_t>(added.id)] = static_cast<int32_t>(type);
  }
  while (static_cast<int64_t>(m.tokens.size()) < vocab_size) {
    m.tokens.push_back(fmt::format("[PAD{}]", m.tokens.size()));
    m.token_type.push_back(static_cast<int32_t>(PieceType::unused));
  }
  const auto id = [](int32_t x) { return x < 0 ? std::optional<int64_t>() : x; };
  m.bos_token_id = id(data.special.bos);
  if (!data.special.eos.empty()) m.eos_token_id = data.special.eos.front();
  m.eot_token_id = id(data.special.eot);
  m.unknown_token_id = id(data.special.unk);
  m.separator_token_id = id(data.special.sep);
  m.padding_token_id = id(data.special.pad);
  m.cls_token_id = id(data.special.cls);
  m.mask_token_id = id(data.special.mask);
  // Files without tokenizer_config.json: what stands around every text.
  if (data.model != TokenizerModel::wordpiece) {
    if (!m.bos_token_id && data.prefix_ids.size() == 1) m.bos_token_id = data.prefix_ids.front();
    if (!m.eos_token_id && data.suffix_ids.size() == 1) m.eos_token_id = data.suffix_ids.front();
  }
  const auto around = [](const std::vector<int32_t>& ids, const std::optional<int64_t>& wanted) {
    return wanted && std::find(ids.begin(), ids.end(), *wanted) != ids.end();
  };
  m.add_bos_token = around(data.prefix_ids, m.bos_token_id);
  m.add_eos_token = around(data.suffix_ids, m.eos_token_id);
  m.chat_template = data.chat_template;
  return m;
}

std::vector<int32_t> probe_ids(const TokenizerData& data) {
  return Tokenizer(data).encode(kProbe);
}

[[noreturn]] void differs(const std::string& tried) {
  throw Error(ErrorCode::unsupported,
              "no vocabulary that GGUF can express cuts text as this tokenizer does",
              "tried " + tried);
}

std::vector<std::pair<size_t, size_t>> words_of(const std::vector<PreTokenizerStep>& steps) {
  Words words;
  words.text = kProbe;
  words.spans.push_back({0, kProbe.size()});
  PreTokenizer(steps, true).run(words);
  std::vector<std::pair<size_t, size_t>> spans;
  for (const Span& s : words.spans) spans.emplace_back(s.begin, s.end);
  return spans;
}

/// The steps of a row of the table, as its reader makes them.
std::vector<PreTokenizerStep> steps_of(const PreTokenizerRow& row) {
  TokenizerMetadata m;
  m.model = "gpt2";
  m.pre = row.name;
  m.tokens = {"a"};
  return tokenizer_data_from_gguf(m).pre_tokenizer;
}

TokenizerMetadata make_byte_level(const TokenizerData& data, int64_t vocab_size) {
  TokenizerMetadata m = common(data, vocab_size);
  m.model = "gpt2";
  for (const Merge& merge : data.merges) m.merges.push_back(merge.left + " " + merge.right);
  const auto wanted_words = words_of(data.pre_tokenizer);
  const std::vector<int32_t> wanted = probe_ids(data);
  std::string tried;
  std::vector<std::string_view> last;
  for (const PreTokenizerRow& row : pre_tokenizer_rows()) {
    // "default" is what a reader takes that was told nothing, and warns.
    if (row.ignore_merges != data.ignore_merges || row.name == "default") continue;
    if (row.expressions == last) continue;  // another name of the row before
    last = row.expressions;
    tried += fmt::format("{}{}", tried.empty() ? "" : ", ", row.name);
    if (words_of(steps_of(row)) != wanted_words) continue;
    m.pre = row.name;
    if (probe_ids(tokenizer_data_from_gguf(m)) == wanted) return m;
  }
  differs("the pre-tokenizers " + tried);
}

/// SentencePiece orders merges by the score of what they make, `tokenizers` by the pair's rank: a
/// piece scores less the later the first pair makes it.
std::vector<float> scores_of_merges(const TokenizerData& data) {
  std::unordered_map<std::string, size_t> ranks;
  for (size_t rank = 0; rank < data.merges.size(); ++rank) {
    ranks.emplace(data.merges[rank].left + data.merges[rank].right, rank);
  }
  std::vector<float> scores;
  for (const std::string& piece : data.pieces) {
    const auto found = ranks.find(piece);
    scores.push_back(found == ranks.end() ? 0.0F : -static_cast<float>(found->second) - 1);
  }
  return scores;
}

TokenizerMetadata make_sentencepiece(const TokenizerData& data, int64_t vocab_size) {
  TokenizerMetadata m = common(data, vocab_size);
  m.model = "llama";
  m.pre = "default";
  if (data.model == TokenizerModel::spm_bpe) {
    m.scores.assign(data.scores.begin(), data.scores.end());
  } else {
    m.scores = scores_of_merges(data);
  }
  m.scores.resize(m.tokens.size(), 0.0F);
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    if (byte_of_piece(m.tokens[id]) >= 0) {
      m.token_type[id] = static_cast<int32_t>(PieceType::byte);
    }
    if (!data.unk_piece.empty() && m.tokens[id] == data.unk_piece) {
      m.token_type[id] = static_cast<int32_t>(PieceType::unknown);
      m.unknown_token_id = static_cast<int64_t>(id);
    }
  }
  const std::vector<int32_t> wanted = probe_ids(data);
  for (const bool prefix : {true, false}) {
    m.add_space_prefix = prefix;
    if (probe_ids(tokenizer_data_from_gguf(m)) == wanted) return m;
  }
  differs("SentencePiece's BPE with and without a space before the text");
}

/// GGUF marks the pieces that start a word, WordPiece those that do not.
TokenizerMetadata make_wordpiece(const TokenizerData& data, int64_t vocab_size) {
  TokenizerMetadata m = common(data, vocab_size);
  m.model = "bert";
  m.pre = "jina-v2-en";  // what readers know WordPiece's pre-tokenizer as
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    std::string& piece = m.tokens[id];
    const bool special = piece.starts_with('[') && piece.ends_with(']') && piece.size() > 2;
    if (special) continue;
    if (!data.continuing_prefix.empty() && piece.starts_with(data.continuing_prefix)) {
      piece.erase(0, data.continuing_prefix.size());
    } else {
      piece.insert(0, kSpaceSymbol);
    }
  }
  const auto id_of = [&data](std::string_view piece) -> std::optional<int64_t> {
    const auto found = std::find(data.pieces.begin(), data.pieces.end(), piece);
    if (found == data.pieces.end()) return {};
    return found - data.pieces.begin();
  };
  if (!m.unknown_token_id) m.unknown_token_id = id_of(data.unk_piece);
  // Files without tokenizer_config.json: the ids that stand around every text.
  if (!m.cls_token_id && !data.prefix_ids.empty()) m.cls_token_id = data.prefix_ids.front();
  if (!m.separator_token_id && !data.suffix_ids.empty()) {
    m.separator_token_id = data.suffix_ids.back();
  }
  m.add_bos_token = !data.prefix_ids.empty();
  m.add_eos_token = !data.suffix_ids.empty();
  if (probe_ids(tokenizer_data_from_gguf(m)) != probe_ids(data)) {
    differs("lowercased WordPiece");
  }
  return m;
}

template <class F>
void with_key(const GgufFile& file, const std::string& key, F&& use) {
  const GgufValue* value = file.find_metadata(key);
  if (!value) return;
  try {
    use(*value);
  } catch (Error& e) {
    e.add_context(key);
    throw;
  }
}

struct IdKey {
  const char* key;
  std::optional<int64_t> TokenizerMetadata::*member;
};
constexpr IdKey kIdKeys[] = {
    {"tokenizer.ggml.bos_token_id", &TokenizerMetadata::bos_token_id},
    {"tokenizer.ggml.eos_token_id", &TokenizerMetadata::eos_token_id},
    {"tokenizer.ggml.eot_token_id", &TokenizerMetadata::eot_token_id},
    {"tokenizer.ggml.unknown_token_id", &TokenizerMetadata::unknown_token_id},
    {"tokenizer.ggml.seperator_token_id", &TokenizerMetadata::separator_token_id},
    {"tokenizer.ggml.padding_token_id", &TokenizerMetadata::padding_token_id},
    {"tokenizer.ggml.cls_token_id", &TokenizerMetadata::cls_token_id},
    {"tokenizer.ggml.mask_token_id", &TokenizerMetadata::mask_token_id},
};

struct FlagKey {
  const char* key;
  std::optional<bool> TokenizerMetadata::*member;
};
constexpr FlagKey kFlagKeys[] = {
    {"tokenizer.ggml.add_bos_token", &TokenizerMetadata::add_bos_token},
    {"tokenizer.ggml.add_eos_token", &TokenizerMetadata::add_eos_token},
    {"tokenizer.ggml.add_sep_token", &TokenizerMetadata::add_sep_token},
    {"tokenizer.ggml.add_space_prefix", &TokenizerMetadata::add_space_prefix},
    {"tokenizer.ggml.remove_extra_whitespaces", &TokenizerMetadata::remove_extra_whitespaces},
};

}  // namespace

bool has_vocabulary(const GgufFile& file) {
  return file.find_metadata("tokenizer.ggml.tokens") != nullptr;
}

TokenizerMetadata vocabulary_of(const GgufFile& file) {
  if (!has_vocabulary(file)) {
    throw Error(ErrorCode::not_found, "the file has no tokenizer (tokenizer.ggml.tokens)");
  }
  TokenizerMetadata m;
  const auto text = [&](const char* key, std::string& out) {
    with_key(file, key, [&out](const GgufValue& v) { out = std::string(v.as_string()); });
  };
  const auto texts = [&](const char* key, std::vector<std::string>& out) {
    with_key(file, key, [&out](const GgufValue& v) {
      for (const std::string_view t : v.as_strings()) out.emplace_back(t);
    });
  };
  text("tokenizer.ggml.model", m.model);
  text("tokenizer.ggml.pre", m.pre);
  texts("tokenizer.ggml.tokens", m.tokens);
  texts("tokenizer.ggml.merges", m.merges);
  text("tokenizer.chat_template", m.chat_template);
  with_key(file, "tokenizer.ggml.scores", [&m](const GgufValue& v) { m.scores = v.as_floats(); });
  with_key(file, "tokenizer.ggml.token_type", [&m](const GgufValue& v) {
    for (const int64_t type : v.as_ints()) {
      m.token_type.push_back(static_cast<int32_t>(std::clamp<int64_t>(type, -1, 1000)));
    }
  });
  with_key(file, "tokenizer.ggml.precompiled_charsmap", [&m](const GgufValue& v) {
    for (const int64_t byte : v.as_ints()) m.precompiled_charsmap += static_cast<char>(byte & 255);
  });
  for (const IdKey& row : kIdKeys) {
    with_key(file, row.key, [&](const GgufValue& v) { m.*row.member = v.as_int(); });
  }
  for (const FlagKey& row : kFlagKeys) {
    with_key(file, row.key, [&](const GgufValue& v) { m.*row.member = v.as_bool(); });
  }
  return m;
}

TokenizerMetadata make_vocabulary(const TokenizerData& data, int64_t vocab_size) {
  const bool byte_level =
      std::any_of(data.pre_tokenizer.begin(), data.pre_tokenizer.end(),
                  [](const auto& step) { return step.kind == PreTokenizerStep::Kind::byte_level; });
  if (data.model == TokenizerModel::bpe && byte_level) return make_byte_level(data, vocab_size);
  if (data.model == TokenizerModel::bpe || data.model == TokenizerModel::spm_bpe) {
    return make_sentencepiece(data, vocab_size);
  }
  if (data.model == TokenizerModel::wordpiece) return make_wordpiece(data, vocab_size);
  throw Error(ErrorCode::unsupported, "a unigram tokenizer cannot be written as GGUF",
              "known are byte-level BPE, SentencePiece BPE and WordPiece");
}

void append_vocabulary(const TokenizerMetadata& m, GgufMetadata& metadata) {
  const auto add = [&metadata](const char* key, GgufValue value) {
    metadata.emplace_back(key, std::move(value));
  };
  add("tokenizer.ggml.model", GgufValue::string(m.model));
  if (!m.pre.empty()) add("tokenizer.ggml.pre", GgufValue::string(m.pre));
  add("tokenizer.ggml.tokens", GgufValue::strings(m.tokens));
  if (!m.scores.empty()) add("tokenizer.ggml.scores", GgufValue::f32s(m.scores));
  if (!m.token_type.empty()) add("tokenizer.ggml.token_type", GgufValue::i32s(m.token_type));
  if (!m.merges.empty()) add("tokenizer.ggml.merges", GgufValue::strings(m.merges));
  for (const IdKey& row : kIdKeys) {
    if (m.*row.member) add(row.key, GgufValue::u32(static_cast<uint32_t>(*(m.*row.member))));
  }
  for (const FlagKey& row : kFlagKeys) {
    if (m.*row.member) add(row.key, GgufValue::boolean(*(m.*row.member)));
  }
  if (!m.chat_template.empty()) {
    add("tokenizer.chat_template", GgufValue::string(m.chat_template));
  }
}

}  // namespace narrow::llm
