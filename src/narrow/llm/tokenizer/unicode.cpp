// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <cstring>

#include "narrow/core/error.h"

namespace narrow::llm {

Utf8Char decode_utf8_slow(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return {first, 1};
  const uint32_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return {-1, 1};
  int32_t code = first & (0x7F >> length);
  for (uint32_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {-1, 1};
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (overlong || surrogate || code > 0x10FFFF) return {-1, 1};
  return {code, length};
}

void append_utf8(std::string& text, int32_t code) {
  const auto put = [&text](int32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
    }
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

size_t valid_utf8_length(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t eight;
    if (i + 8 <= text.size()) {
      std::memcpy(&eight, text.data() + i, 8);
      if ((eight & 0x8080808080808080ull) == 0) {
        i += 8;
        continue;
      }
    }
    const Utf8Char c = decode_utf8(text.substr(i));
    if (c.code < 0) break;
    i += c.length;
  }
  return i;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  while (true) {
    const size_t valid = valid_utf8_length(text);
    out.append(text.substr(0, valid));
    if (valid == text.size()) return out;
    out.append(kReplacementCharacter);
    text.remove_prefix(valid + 1);
  }
}

size_t incomplete_utf8_tail(std::string_view text) {
  for (size_t tail = 1; tail <= 3 && tail <= text.size(); ++tail) {
    const auto first = static_cast<uint8_t>(text[text.size() - tail]);
    if ((first & 0xC0) == 0x80) continue;
    const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 1;
    if (first > 0xF4 || length <= tail) return 0;
    // The second byte of some leads has a narrower range: what can never be completed is no tail.
    if (tail > 1) {
      const auto second = static_cast<uint8_t>(text[text.size() - tail + 1]);
      if (first == 0xE0 && second < 0xA0) return 0;
      if (first == 0xED && second > 0x9F) return 0;
      if (first == 0xF0 && second < 0x90) return 0;
      if (first == 0xF4 && second > 0x8F) return 0;
    }
    return tail;
  }
  return 0;
}

LastChar last_char(std::string_view text) {
  size_t start = text.size() - 1;
  while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
  return {start, decode_utf8(text.substr(start)).code};
}

int category(int32_t code) {
  return utf8proc_category(code);
}

bool is_white_space(int32_t code) {
  if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13);
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

CharClass char_class_slow(int32_t code) {
  if (is_white_space(code)) return CharClass::space;
  switch (category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::number;
    default:
      return CharClass::other;
  }
}

const std::array<CharClass, 0x10000>& char_class_table() {
  static const auto table = [] {
    auto t = std::make_unique<std::array<CharClass, 0x10000>>();
    for (size_t i = 0; i < t->size(); ++i) (*t)[i] = char_class_slow(static_cast<int32_t>(i));
    return t;
  }();
  return *table;
}

bool is_number(int32_t code) {
  return char_class_slow(code) == CharClass::number;
}

bool is_punctuation(int32_t code) {
  if (code < 0x80) {
    return (code > 32 && code < 48) || (code > 57 && code < 65) || (code > 90 && code < 97) ||
           (code > 122 && code < 127);
  }
  const int c = category(code);
  return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(int32_t code) {
  const int c = category(code);
  return c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(int32_t code) {
  return category(code) == UTF8PROC_CATEGORY_MN;
}

bool is_word_char(int32_t code) {
  if (code == 0x200C || code == 0x200D) return true;  // Join_Control
  // Circled and squared letters: symbols that count as alphabetic.
  if ((code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
      (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189)) {
    return true;
  }
  const int c = category(code);
  return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC;
}

bool is_control(int32_t code) {
  if (code == '\t' || code == '\n' || code == '\r') return false;
  const int c = category(code);
  return c >= UTF8PROC_CATEGORY_CC && c <= UTF8PROC_CATEGORY_CO;
}

bool is_cjk(int32_t code) {
  return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) ||
         (code >= 0x20000 && code <= 0x2A6DF) || (code >= 0x2A700 && code <= 0x2B73F) ||
         (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
         (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

void append_lower(std::string& text, int32_t code) {
  if (code == 0x130) {
    text += "i\xCC\x87";
    return;
  }
  append_utf8(text, utf8proc_tolower(code));
}

std::string normal_form(std::string_view text, NormalForm form) {
  int options = UTF8PROC_STABLE;
  const bool composed = form == NormalForm::nfc || form == NormalForm::nfkc;
  options |= composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::nfkc || form == NormalForm::nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t length = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
      static_cast<utf8proc_ssize_t>(text.size()), &result, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  if (length < 0) {
    throw Error(ErrorCode::resource_exhausted,
                std::string("normal form of a text: ") + utf8proc_errmsg(length));
  }
  return {reinterpret_cast<const char*>(result), static_cast<size_t>(length)};
}

size_t grapheme_length(std::string_view text) {
  Utf8Char c = decode_utf8(text);
  size_t length = c.length;
  utf8proc_int32_t state = 0;
  while (length < text.size()) {
    const Utf8Char next = decode_utf8(text.substr(length));
    if (utf8proc_grapheme_break_stateful(c.code, next.code, &state)) break;
    length += next.length;
    c = next;
  }
  return length;
}

const std::array<int32_t, 256>& byte_characters() {
  static const auto table = [] {
    std::array<int32_t, 256> t{};
    int32_t extra = 256;
    for (int32_t b = 0; b < 256; ++b) {
      const bool printed = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      t[static_cast<size_t>(b)] = printed ? b : extra++;
    }
    return t;
  }();
  return table;
}

int byte_of_character(int32_t code) {
  static const auto table = [] {
    std::array<int16_t, 512> t{};
    t.fill(-1);
    for (size_t b = 0; b < 256; ++b) {
      t[static_cast<size_t>(byte_characters()[b])] = static_cast<int16_t>(b);
    }
    return t;
  }();
  return code >= 0 && code < 512 ? table[static_cast<size_t>(code)] : -1;
}

}  // namespace narrow::llm
