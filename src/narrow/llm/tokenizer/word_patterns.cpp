// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/word_patterns.h"

#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

class Cursor {
 public:
  Cursor(std::string_view text, Span range)
      : text_(text.substr(0, range.end)), table_(char_class_table()) {}

  struct Char {
    CharClass kind;
    uint32_t next;  // where the following character starts
    int32_t code;
  };

  bool end(uint32_t at) const { return at >= text_.size(); }
  Char get(uint32_t at) const {
    const Utf8Char c = decode_utf8(text_.substr(at));
    return {char_class(table_, c.code), at + c.length, c.code};
  }
  bool is(uint32_t at, CharClass kind) const { return !end(at) && get(at).kind == kind; }

  /// Behind the longest run of a class, of at most `most` characters.
  uint32_t run(uint32_t at, CharClass kind, uint32_t most = UINT32_MAX) const {
    while (!end(at) && most-- > 0) {
      const Char c = get(at);
      if (c.kind != kind) break;
      at = c.next;
    }
    return at;
  }
  uint32_t line_ends(uint32_t at) const {
    while (!end(at) && is_line_end(text_[at])) ++at;
    return at;
  }
  static bool is_line_end(int32_t code) { return code == '\r' || code == '\n'; }

  /// Behind an English contraction ('s 't 'm 'd 're 've 'll) that starts at `at`, or `at`.
  template <bool kAnyCase>
  uint32_t contraction(uint32_t at) const {
    if (text_[at] != '\'') return at;
    const auto letter = [&](uint32_t i) -> char {
      if (end(i)) return '\0';
      const char c = text_[i];
      return kAnyCase && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    };
    const char a = letter(at + 1);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
    // The long s folds to s, as engines with Unicode case folding have it.
    if (kAnyCase && text_.substr(at + 1, 2) == "\xC5\xBF") return at + 3;
    const char b = letter(at + 2);
    const bool two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
    return two ? at + 3 : at;
  }

  /// White space from `at` on: all of it at the end of the text, otherwise all but its last
  /// character, which belongs to what follows; a single one stands alone.
  uint32_t spaces(uint32_t at) const {
    uint32_t last = at;
    uint32_t i = at;
    while (!end(i)) {
      const Char c = get(i);
      if (c.kind != CharClass::space) return last == at ? i : last;
      last = i;
      i = c.next;
    }
    return i;
  }

  /// Behind the last line end of the white space at `at`, or `at` where there is none.
  uint32_t spaces_to_line_end(uint32_t at) const {
    uint32_t found = at;
    for (uint32_t i = at; !end(i);) {
      const Char c = get(i);
      if (c.kind != CharClass::space) break;
      if (is_line_end(c.code)) found = c.next;
      i = c.next;
    }
    return found;
  }

 private:
  std::string_view text_;
  const std::array<CharClass, 0x10000>& table_;
};

uint32_t next_gpt2(const Cursor& cursor, uint32_t at) {
  if (const uint32_t end = cursor.contraction<false>(at); end > at) return end;
  const Cursor::Char first = cursor.get(at);
  if (first.kind != CharClass::space) return cursor.run(first.next, first.kind);
  if (first.code == ' ' && !cursor.end(first.next)) {
    const Cursor::Char second = cursor.get(first.next);
    if (second.kind != CharClass::space) return cursor.run(second.next, second.kind);
  }
  return cursor.spaces(at);
}

template <uint32_t kDigits>
uint32_t next_llama3(const Cursor& cursor, uint32_t at) {
  if (const uint32_t end = cursor.contraction<true>(at); end > at) return end;
  const Cursor::Char first = cursor.get(at);
  if (first.kind == CharClass::letter) return cursor.run(first.next, CharClass::letter);
  if (first.kind == CharClass::number) return cursor.run(at, CharClass::number, kDigits);
  // One character that is no line end may stand before letters, a space before signs.
  if (!Cursor::is_line_end(first.code) && cursor.is(first.next, CharClass::letter)) {
    return cursor.run(first.next, CharClass::letter);
  }
  const bool spaced = first.code == ' ' && cursor.is(first.next, CharClass::other);
  if (first.kind == CharClass::other || spaced) {
    return cursor.line_ends(cursor.run(first.next, CharClass::other));
  }
  if (const uint32_t end = cursor.spaces_to_line_end(at); end > at) return end;
  return cursor.spaces(at);
}

template <class F>
void split_with(F&& next, std::string_view text, Span range, std::vector<Span>& out) {
  const Cursor cursor(text, range);
  for (uint32_t at = range.begin; at < range.end;) {
    const uint32_t end = next(cursor, at);
    out.push_back({at, end});
    at = end;
  }
}

}  // namespace

std::optional<WordPattern> known_word_pattern(std::string_view expression) {
  if (expression == kGpt2Pattern) return WordPattern::gpt2;
  if (expression == kLlama3Pattern) return WordPattern::llama3;
  if (expression == kQwen2Pattern) return WordPattern::qwen2;
  return std::nullopt;
}

void split_words(WordPattern pattern, std::string_view text, Span range, std::vector<Span>& out) {
  switch (pattern) {
    case WordPattern::gpt2:
      return split_with(next_gpt2, text, range, out);
    case WordPattern::llama3:
      return split_with(next_llama3<3>, text, range, out);
    case WordPattern::qwen2:
      return split_with(next_llama3<1>, text, range, out);
  }
}

}  // namespace narrow::llm
