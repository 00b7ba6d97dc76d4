// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/added_tokens.h"
#include "narrow/llm/tokenizer/decoder.h"
#include "narrow/llm/tokenizer/models.h"
#include "narrow/llm/tokenizer/normalizer.h"
#include "narrow/llm/tokenizer/pre_tokenizer.h"
#include "narrow/llm/tokenizer/unicode.h"
#include "narrow/llm/tokenizer/word_cache.h"

namespace narrow::llm {
namespace {

// Positions in words are 32 bits, and normalizers may lengthen the text.
constexpr size_t kMaxText = size_t{1} << 29;

/// Byte-level models work on bytes where nothing but the last step turns bytes into characters.
bool keeps_bytes(const TokenizerData& data) {
  const auto& steps = data.pre_tokenizer;
  const auto is_byte_level = [](const PreTokenizerStep& s) {
    return s.kind == PreTokenizerStep::Kind::byte_level;
  };
  return data.model == TokenizerModel::bpe && !steps.empty() && is_byte_level(steps.back()) &&
         std::count_if(steps.begin(), steps.end(), is_byte_level) == 1 &&
         data.continuing_prefix.empty() && data.word_suffix.empty() && !data.byte_fallback;
}

std::unique_ptr<WordModel> make_model(const TokenizerData& data, bool keep_bytes) {
  switch (data.model) {
    case TokenizerModel::bpe:
      return make_bpe(data, keep_bytes);
    case TokenizerModel::spm_bpe:
      return make_spm_bpe(data);
    case TokenizerModel::unigram:
    case TokenizerModel::spm_unigram:
      return make_unigram(data);
    case TokenizerModel::wordpiece:
      return make_wordpiece(data);
  }
  throw Error(ErrorCode::internal, "unknown model of a tokenizer");
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(TokenizerData d);

  void encode_text(std::string_view text, bool at_start, bool parse_special, WordCache& cache,
                   std::vector<int32_t>& ids) const;
  void encode_valid(std::string_view text, bool at_start, bool parse_special, WordCache& cache,
                    std::vector<int32_t>& ids) const;
  void encode_words(Words& words, WordCache& cache, std::vector<int32_t>& ids) const;
  void encode_word(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const;

  /// Lends a cache to one call: threads never share one, and each keeps what it learnt.
  std::unique_ptr<WordCache> borrow() const;
  void give_back(std::unique_ptr<WordCache> cache) const;

  const std::string& piece(int32_t id) const;
  void push(int32_t id, const DecodeOptions& options, Decoder::State& state,
            std::string& out) const;

  TokenizerData data;
  bool keep_bytes;
  PieceIndex index;
  Trie user_defined;
  Normalizer normalizer;
  AddedTokens raw;         // searched in the text as it comes
  AddedTokens normalized;  // searched in the normalized text
  PreTokenizer pre_tokenizer;
  std::unique_ptr<WordModel> model;
  Decoder decoder;
  std::vector<bool> special;

  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<WordCache>> caches;
};

Tokenizer::Impl::Impl(TokenizerData d) : data(std::move(d)) {
  check(data);
  keep_bytes = keeps_bytes(data);
  for (size_t id = 0; id < data.pieces.size(); ++id) {
    index.emplace(data.pieces[id], static_cast<int32_t>(id));
  }
  for (size_t id = 0; id < data.types.size(); ++id) {
    if (data.types[id] == PieceType::user_defined && !data.pieces[id].empty()) {
      user_defined.insert(data.pieces[id], static_cast<int32_t>(id));
    }
  }
  normalizer = Normalizer(data.normalizer, user_defined.empty() ? nullptr : &user_defined);
  special.resize(data.pieces.size());
  std::vector<AddedToken> plain;
  std::vector<AddedToken> after;
  for (const AddedToken& a : data.added) {
    if (a.special) special[static_cast<size_t>(a.id)] = true;
    if (!a.normalized) {
      plain.push_back(a);
      continue;
    }
    after.push_back(a);
    if (is_valid_utf8(a.content)) after.back().content = normalizer.run(a.content);
    if (after.back().content.empty()) after.pop_back();
  }
  raw = AddedTokens(std::move(plain));
  normalized = AddedTokens(std::move(after));
  pre_tokenizer = PreTokenizer(data.pre_tokenizer, keep_bytes);
  model = make_model(data, keep_bytes);
  decoder = Decoder(data.decoder, data.join_with_spaces);
}

std::unique_ptr<WordCache> Tokenizer::Impl::borrow() const {
  const std::lock_guard lock(mutex);
  if (caches.empty()) return std::make_unique<WordCache>();
  auto cache = std::move(caches.back());
  caches.pop_back();
  return cache;
}

void Tokenizer::Impl::give_back(std::unique_ptr<WordCache> cache) const {
  const std::lock_guard lock(mutex);
  caches.push_back(std::move(cache));
}

void Tokenizer::Impl::encode_word(std::string_view word, WordCache& cache,
                                  std::vector<int32_t>& ids) const {
  if (word.size() > WordCache::kMaxWord || !model->is_cacheable()) {
    model->encode(word, ids);
    return;
  }
  const uint64_t hash = WordCache::hash(word);
  if (cache.find(word, hash, ids)) return;
  const size_t first = ids.size();
  model->encode(word, ids);
  cache.put(word, hash, std::span(ids).subspan(first));
}

void Tokenizer::Impl::encode_words(Words& words, WordCache& cache,
                                   std::vector<int32_t>& ids) const {
  pre_tokenizer.run(words);
  const std::string_view text = words.text;
  for (const Span span : words.spans) {
    std::string_view word = text.substr(span.begin, span.end - span.begin);
    if (model->cuts_before_space()) {
      // Cut before each U+2581 that stands behind another character.
      size_t at = 0;
      while ((at = word.find(kSpaceSymbol, at)) != std::string_view::npos) {
        if (at > 0 && !word.substr(0, at).ends_with(kSpaceSymbol)) {
          encode_word(word.substr(0, at), cache, ids);
          word.remove_prefix(at);
          at = 0;
        }
        at += kSpaceSymbol.size();
      }
    }
    if (!word.empty()) encode_word(word, cache, ids);
  }
}

void Tokenizer::Impl::encode_valid(std::string_view text, bool at_start, bool parse_special,
                                   WordCache& cache, std::vector<int32_t>& ids) const {
  std::string clean;
  if (!normalizer.is_identity()) {
    clean = normalizer.run(text);
    text = clean;
    if (text.size() >= 4 * kMaxText - 1) {
      throw Error(ErrorCode::resource_exhausted, "a normalized text of 2 GiB or more",
                  "encode it in parts");
    }
  }
  const auto encode_section = [&](std::string_view section, bool first) {
    Words words{std::string(section), {{0, static_cast<uint32_t>(section.size())}}, first};
    encode_words(words, cache, ids);
  };
  if (text.empty()) return;
  if (normalized.empty()) return encode_section(text, at_start);
  normalized.split(text, parse_special, [&](const Section& s) {
    if (s.id >= 0) {
      ids.push_back(s.id);
    } else {
      encode_section(s.text, at_start && s.text.data() == text.data());
    }
  });
}

void Tokenizer::Impl::encode_text(std::string_view text, bool at_start, bool parse_special,
                                  WordCache& cache, std::vector<int32_t>& ids) const {
  while (!text.empty()) {
    const size_t valid = valid_utf8_length(text);
    if (valid > 0) {
      encode_valid(text.substr(0, valid), at_start, parse_special, cache, ids);
      text.remove_prefix(valid);
    }
    at_start = false;
    // Only byte-level models get here with ill-formed bytes: a run of them is one word.
    size_t run = 0;
    while (run < text.size() && decode_utf8(text.substr(run)).code < 0) ++run;
    if (run > 0) encode_word(text.substr(0, run), cache, ids);
    text.remove_prefix(run);
  }
}

const std::string& Tokenizer::Impl::piece(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= data.pieces.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("token {} is outside the vocabulary of {}", id, data.pieces.size()));
  }
  return data.pieces[static_cast<size_t>(id)];
}

void Tokenizer::Impl::push(int32_t id, const DecodeOptions& options, Decoder::State& state,
                           std::string& out) const {
  const std::string& text = piece(id);
  if (options.skip_special && special[static_cast<size_t>(id)]) return;
  const bool unknown = type_of(data, static_cast<size_t>(id)) == PieceType::unknown;
  decoder.push(state, unknown && !data.unk_surface.empty() ? data.unk_surface : text, out);
}

Tokenizer::Tokenizer(TokenizerData data) : impl_(std::make_shared<const Impl>(std::move(data))) {}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() >= kMaxText) {
    throw Error(ErrorCode::resource_exhausted, "a text of 512 MiB or more", "encode it in parts");
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  const TokenizerData& data = impl_->data;
  if (options.add_special) ids = data.prefix_ids;
  std::string repaired;
  if (!impl_->keep_bytes && !is_valid_utf8(text)) {
    repaired = replace_invalid_utf8(text);
    text = repaired;
  }
  auto cache = impl_->borrow();
  const auto encode_section = [&](const Section& s) {
    if (s.id >= 0) {
      ids.push_back(s.id);
    } else {
      impl_->encode_text(s.text, s.text.data() == text.data(), options.parse_special, *cache, ids);
    }
  };
  if (impl_->raw.empty()) {
    encode_section({text, -1});
  } else {
    impl_->raw.split(text, options.parse_special, encode_section);
  }
  impl_->give_back(std::move(cache));
  if (options.add_special) {
    ids.insert(ids.end(), data.suffix_ids.begin(), data.suffix_ids.end());
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  std::string out;
  Decoder::State state;
  for (const int32_t id : ids) impl_->push(id, options, state, out);
  return out;
}

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(impl_->data.pieces.size());
}
const std::string& Tokenizer::piece(int32_t id) const {
  return impl_->piece(id);
}
int32_t Tokenizer::find(std::string_view piece) const {
  const auto found = impl_->index.find(piece);
  return found == impl_->index.end() ? -1 : found->second;
}
bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < impl_->special.size() &&
         impl_->special[static_cast<size_t>(id)];
}
bool Tokenizer::is_end(int32_t id) const {
  const auto& eos = impl_->data.special.eos;
  return std::find(eos.begin(), eos.end(), id) != eos.end();
}
const SpecialIds& Tokenizer::special() const {
  return impl_->data.special;
}
const std::string& Tokenizer::chat_template() const {
  return impl_->data.chat_template;
}
const TokenizerData& Tokenizer::data() const {
  return impl_->data;
}

struct StreamDecoder::State {
  std::shared_ptr<const Tokenizer::Impl> impl;
  DecodeOptions options;
  Decoder::State decoder;
  std::string pending;  // bytes that are no complete character yet
};

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, const DecodeOptions& options)
    : state_(std::make_unique<State>(State{tokenizer.impl_, options, {}, {}})) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  std::string& pending = state_->pending;
  state_->impl->push(id, state_->options, state_->decoder, pending);
  const size_t tail = incomplete_utf8_tail(pending);
  std::string out =
      replace_invalid_utf8(std::string_view(pending).substr(0, pending.size() - tail));
  pending.erase(0, pending.size() - tail);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = replace_invalid_utf8(state_->pending);
  state_->pending.clear();
  state_->decoder = {};
  return out;
}

}  // namespace narrow::llm
