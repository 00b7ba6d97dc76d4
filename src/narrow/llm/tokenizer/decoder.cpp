// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/decoder.h"

#include <utility>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

using Kind = DecoderStep::Kind;

std::string replaced(std::string_view text, std::string_view what, std::string_view with) {
  if (what.empty()) return std::string(text);
  std::string out;
  size_t at = 0;
  for (size_t hit; (hit = text.find(what, at)) != std::string_view::npos; at = hit + what.size()) {
    out.append(text.substr(at, hit - at)).append(with);
  }
  return out.append(text.substr(at));
}

/// The bytes of stand-ins; a piece with any other character is its own text.
std::string bytes_of(std::string_view piece) {
  std::string out;
  for (size_t i = 0; i < piece.size();) {
    const Utf8Char c = decode_utf8(piece.substr(i));
    const int byte = byte_of_character(c.code);
    if (byte < 0) return std::string(piece);
    out.push_back(static_cast<char>(byte));
    i += c.length;
  }
  return out;
}

/// What WordPiece decoders of BERT tidy up.
std::string cleaned(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [what, with] : kRules) text = replaced(text, what, with);
  return text;
}

std::string wordpiece(const DecoderStep& s, std::string text, bool first) {
  if (!first) {
    if (text.starts_with(s.pattern)) {
      text.erase(0, s.pattern.size());
    } else {
      text.insert(0, 1, ' ');
    }
  }
  return s.cleanup ? cleaned(std::move(text)) : text;
}

std::string metaspace(const DecoderStep& s, std::string_view text, bool first) {
  return replaced(text, s.pattern, first && s.drop_first ? "" : " ");
}

std::string stripped(const DecoderStep& s, std::string_view text) {
  for (int i = 0; i < s.start && text.starts_with(s.content); ++i) {
    text.remove_prefix(s.content.size());
  }
  for (int i = 0; i < s.stop && text.ends_with(s.content); ++i) {
    text.remove_suffix(s.content.size());
  }
  return std::string(text);
}

std::string apply(const DecoderStep& s, std::string text, bool first) {
  switch (s.kind) {
    case Kind::byte_level:
      return bytes_of(text);
    case Kind::metaspace:
      return metaspace(s, text, first);
    case Kind::wordpiece:
      return wordpiece(s, std::move(text), first);
    case Kind::byte_fallback: {
      const int byte = byte_of_piece(text);
      return byte < 0 ? text : std::string(1, static_cast<char>(byte));
    }
    case Kind::replace:
      return replaced(text, s.pattern, s.content);
    case Kind::strip:
      return stripped(s, text);
    case Kind::sentencepiece:
    case Kind::fuse:
      break;
  }
  return text;
}

}  // namespace

Decoder::Decoder(const std::vector<DecoderStep>& steps, bool join_with_spaces)
    : steps_(steps), fused_(steps.size()), join_with_spaces_(join_with_spaces) {
  for (size_t i = 0; i < steps.size(); ++i) {
    const DecoderStep& s = steps[i];
    if (s.kind == Kind::strip && s.content.empty()) {
      throw Error(ErrorCode::corrupt_data, "a decoder strips the empty text");
    }
    const bool fused = fused_ < i;
    const bool any_piece = s.kind == Kind::fuse || s.kind == Kind::strip ||
                           (s.kind == Kind::replace && s.pattern.size() == 1);
    if (fused && !any_piece) {
      throw Error(ErrorCode::unsupported, "a decoder's step after Fuse needs single pieces");
    }
    const bool fuses = s.kind == Kind::fuse || s.kind == Kind::byte_level;
    if (fuses && fused_ == steps.size()) fused_ = i;
  }
}

void Decoder::push(State& state, std::string_view piece, std::string& out) const {
  if (state.stripped.empty()) {
    state.stripped.resize(steps_.size());
    state.held.resize(steps_.size());
  }
  const bool first = state.pieces++ == 0;
  std::string text(piece);
  if (join_with_spaces_ && !first) out += ' ';
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (i > fused_ && steps_[i].kind == Kind::strip) {
      strip_stream(state, i, text);
    } else if (steps_[i].kind == Kind::sentencepiece) {
      strip_spaces(state, i, text);
    } else {
      text = apply(steps_[i], std::move(text), first);
    }
  }
  out += text;
}

/// Takes one U+2581 of each piece as long as there is no text yet.
void Decoder::strip_spaces(State& state, size_t step, std::string& text) const {
  const DecoderStep& s = steps_[step];
  int& taken = state.stripped[step];
  if (taken < s.start && text.starts_with(kSpaceSymbol)) {
    text.erase(0, kSpaceSymbol.size());
    ++taken;
  }
  if (!text.empty()) taken = s.start;
  text = replaced(text, kSpaceSymbol, " ");
}

/// Strips at the start of the whole text, and holds back what could be stripped at its end.
void Decoder::strip_stream(State& state, size_t step, std::string& text) const {
  const DecoderStep& s = steps_[step];
  int& taken = state.stripped[step];
  std::string_view rest = text;
  while (taken < s.start && rest.starts_with(s.content)) {
    rest.remove_prefix(s.content.size());
    ++taken;
  }
  if (!rest.empty()) taken = s.start;
  std::string whole = std::exchange(state.held[step], {});
  whole += rest;
  size_t keep = whole.size();
  for (int i = 0; i < s.stop && std::string_view(whole).substr(0, keep).ends_with(s.content); ++i) {
    keep -= s.content.size();
  }
  state.held[step] = whole.substr(keep);
  text = whole.substr(0, keep);
}

}  // namespace narrow::llm
