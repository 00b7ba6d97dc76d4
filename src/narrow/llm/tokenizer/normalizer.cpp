// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/normalizer.h"

#include <algorithm>
#include <optional>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/charsmap.h"
#include "narrow/llm/tokenizer/regex.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

using Step = Normalizer::Step;
using Kind = NormalizerStep::Kind;

// NFKC makes up to 11 bytes of one; more than this only a hostile file does. One step cannot get
// far past the limit because replacements are short.
constexpr size_t kGrowth = 64;
constexpr size_t kGrowthBase = 1 << 16;
constexpr size_t kMaxReplacement = 256;

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

/// Calls f(code, the character's bytes) for each character.
template <class F>
void each_char(std::string_view text, F&& f) {
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(i));
    f(c.code, text.substr(i, c.length));
    i += c.length;
  }
}

void append_replaced(std::string& out, std::string_view text, std::string_view what,
                     std::string_view with) {
  size_t at = 0;
  for (size_t hit; (hit = text.find(what, at)) != std::string_view::npos; at = hit + what.size()) {
    out.append(text.substr(at, hit - at)).append(with);
  }
  out.append(text.substr(at));
}

struct FormStep final : Step {
  explicit FormStep(NormalForm f) : form(f) {}
  std::string run(std::string_view text) const override {
    return is_ascii(text) ? std::string(text) : normal_form(text, form);
  }
  NormalForm form;
};

struct LowercaseStep final : Step {
  std::string run(std::string_view text) const override {
    std::string out;
    out.reserve(text.size());
    each_char(text, [&](int32_t code, std::string_view) { append_lower(out, code); });
    return out;
  }
};

struct StripAccentsStep final : Step {
  std::string run(std::string_view text) const override {
    std::string out;
    each_char(text, [&](int32_t code, std::string_view bytes) {
      if (!is_mark(code)) out.append(bytes);
    });
    return out;
  }
};

/// BERT's own: control characters away, ideographs isolated, accents away, lower case.
struct BertStep final : Step {
  explicit BertStep(const NormalizerStep& s) : options(s) {}
  std::string run(std::string_view text) const override {
    std::string out;
    out.reserve(text.size());
    each_char(text, [&](int32_t code, std::string_view bytes) {
      if (options.clean_text) {
        if (code == 0 || code == 0xFFFD || is_control(code)) return;
        if (is_white_space(code)) {
          out += ' ';
          return;
        }
      }
      const bool isolate = options.chinese_chars && is_cjk(code);
      if (isolate) out += ' ';
      out.append(bytes);
      if (isolate) out += ' ';
    });
    if (options.strip_accents && !is_ascii(out)) {
      const std::string decomposed = normal_form(out, NormalForm::nfd);
      out.clear();
      each_char(decomposed, [&](int32_t code, std::string_view bytes) {
        if (!is_nonspacing_mark(code)) out.append(bytes);
      });
    }
    return options.lowercase ? LowercaseStep().run(out) : out;
  }
  NormalizerStep options;
};

struct PrependStep final : Step {
  explicit PrependStep(std::string p) : prefix(std::move(p)) {}
  std::string run(std::string_view text) const override {
    return text.empty() ? std::string() : prefix + std::string(text);
  }
  std::string prefix;
};

struct ReplaceStep final : Step {
  explicit ReplaceStep(const NormalizerStep& s) : pattern(s.pattern), content(s.content) {}
  std::string run(std::string_view text) const override {
    std::string out;
    out.reserve(text.size() + text.size() / 2);
    append_replaced(out, text, pattern, content);
    return out;
  }
  std::string pattern, content;
};

struct RegexReplaceStep final : Step {
  explicit RegexReplaceStep(const NormalizerStep& s) : regex(s.pattern), content(s.content) {}
  std::string run(std::string_view text) const override {
    std::string out;
    size_t at = 0;
    regex.each_match(text, [&](size_t begin, size_t end) {
      out.append(text.substr(at, begin - at)).append(content);
      at = end;
    });
    out.append(text.substr(at));
    return out;
  }
  Regex regex;
  std::string content;
};

struct StripStep final : Step {
  StripStep(bool l, bool r) : left(l), right(r) {}
  std::string run(std::string_view text) const override {
    while (left && !text.empty()) {
      const Utf8Char c = decode_utf8(text);
      if (!is_white_space(c.code)) break;
      text.remove_prefix(c.length);
    }
    while (right && !text.empty()) {
      const LastChar c = last_char(text);
      if (!is_white_space(c.code)) break;
      text = text.substr(0, c.start);
    }
    return std::string(text);
  }
  bool left, right;
};

struct ByteLevelStep final : Step {
  std::string run(std::string_view text) const override {
    std::string out;
    out.reserve(text.size() + text.size() / 4);
    for (const char c : text) append_utf8(out, byte_characters()[static_cast<uint8_t>(c)]);
    return out;
  }
};

/// `tokenizers` looks up whole graphemes shorter than 6 bytes, then single characters.
struct CharsmapStep final : Step {
  explicit CharsmapStep(std::string_view blob) : map(blob) {}
  std::string run(std::string_view text) const override {
    std::string out;
    while (!text.empty()) {
      const std::string_view grapheme = text.substr(0, grapheme_length(text));
      text.remove_prefix(grapheme.size());
      if (grapheme.size() < 6) {
        if (const auto m = map.shortest(grapheme); m.length > 0) {
          out.append(m.replacement);
          continue;
        }
      }
      each_char(grapheme, [&](int32_t, std::string_view bytes) {
        const auto m = map.shortest(bytes);
        out.append(m.length > 0 ? m.replacement : bytes);
      });
    }
    return is_valid_utf8(out) ? out : replace_invalid_utf8(out);
  }
  Charsmap map;
};

struct SentencePieceStep final : Step {
  SentencePieceStep(const NormalizerStep& s, const Trie* u) : options(s), user_defined(u) {
    if (!s.charsmap.empty()) map.emplace(s.charsmap);
  }

  /// The next piece of output and the bytes of `text` that it stands for.
  std::pair<std::string_view, size_t> next(std::string_view text) const {
    if (user_defined != nullptr) {
      if (const auto m = user_defined->longest(text); m.length > 0) {
        return {text.substr(0, m.length), m.length};
      }
    }
    if (map) {
      if (const auto m = map->longest(text); m.length > 0) return {m.replacement, m.length};
    }
    const size_t length = decode_utf8(text).length;
    return {text.substr(0, length), length};
  }

  std::string run(std::string_view text) const override {
    const bool trim = options.remove_extra_whitespaces;
    while (trim && !text.empty()) {
      const auto [piece, bytes] = next(text);
      if (piece != " ") break;
      text.remove_prefix(bytes);
    }
    std::string out;
    if (text.empty()) return out;
    out.reserve(text.size() + text.size() / 2 + 8);
    if (options.add_dummy_prefix) out = kSpaceSymbol;
    bool after_space = trim;
    while (!text.empty()) {
      auto [piece, bytes] = next(text);
      text.remove_prefix(bytes);
      while (after_space && piece.starts_with(' ')) piece.remove_prefix(1);
      if (piece.empty()) continue;
      for (const char c : piece) {
        if (c == ' ') {
          out.append(kSpaceSymbol);
        } else {
          out += c;
        }
      }
      after_space = trim && piece.ends_with(' ');
    }
    while (trim && out.ends_with(kSpaceSymbol)) out.resize(out.size() - kSpaceSymbol.size());
    return is_valid_utf8(out) ? out : replace_invalid_utf8(out);
  }

  NormalizerStep options;
  const Trie* user_defined;
  std::optional<Charsmap> map;
};

std::shared_ptr<const Step> make_step(const NormalizerStep& s, const Trie* user_defined) {
  if (s.content.size() > kMaxReplacement) {
    throw Error(ErrorCode::unsupported, "a normalizer's replacement is longer than 256 bytes");
  }
  switch (s.kind) {
    case Kind::nfc:
      return std::make_shared<FormStep>(NormalForm::nfc);
    case Kind::nfd:
      return std::make_shared<FormStep>(NormalForm::nfd);
    case Kind::nfkc:
      return std::make_shared<FormStep>(NormalForm::nfkc);
    case Kind::nfkd:
      return std::make_shared<FormStep>(NormalForm::nfkd);
    case Kind::lowercase:
      return std::make_shared<LowercaseStep>();
    case Kind::strip_accents:
      return std::make_shared<StripAccentsStep>();
    case Kind::bert:
      return std::make_shared<BertStep>(s);
    case Kind::prepend:
      return std::make_shared<PrependStep>(s.content);
    case Kind::replace:
      if (s.pattern.empty()) break;
      if (s.is_regex) return std::make_shared<RegexReplaceStep>(s);
      return std::make_shared<ReplaceStep>(s);
    case Kind::strip:
      return std::make_shared<StripStep>(s.left, s.right);
    case Kind::charsmap:
      return std::make_shared<CharsmapStep>(s.charsmap);
    case Kind::sentencepiece:
      return std::make_shared<SentencePieceStep>(s, user_defined);
    case Kind::byte_level:
      return std::make_shared<ByteLevelStep>();
  }
  throw Error(ErrorCode::corrupt_data, "a normalizer replaces the empty text");
}

}  // namespace

Normalizer::Normalizer(const std::vector<NormalizerStep>& steps, const Trie* user_defined) {
  for (const NormalizerStep& s : steps) steps_.push_back(make_step(s, user_defined));
}

std::string Normalizer::run(std::string_view text) const {
  std::string result(text);
  const size_t limit = kGrowthBase + kGrowth * text.size();
  for (const auto& step : steps_) {
    result = step->run(result);
    if (result.size() > limit) {
      throw Error(ErrorCode::resource_exhausted, "the normalizer lets the text explode");
    }
  }
  return result;
}

}  // namespace narrow::llm
