// SPDX-License-Identifier: Apache-2.0
// UTF-8 and the properties of characters that tokenizers ask for. Categories are utf8proc's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace narrow::llm {

/// U+2581, SentencePiece's sign for a space.
inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";
/// U+FFFD, the replacement of what is no character.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

struct Utf8Char {
  int32_t code;     // -1: ill-formed
  uint32_t length;  // bytes; 1 where ill-formed
};

/// The character at the start of `text`, which is not empty.
Utf8Char decode_utf8_slow(std::string_view text);
inline Utf8Char decode_utf8(std::string_view text) {
  const auto first = static_cast<uint8_t>(text[0]);
  if (first < 0x80) return {first, 1};
  return decode_utf8_slow(text);
}
void append_utf8(std::string& text, int32_t code);
/// The length of the longest well-formed start of `text`.
size_t valid_utf8_length(std::string_view text);
inline bool is_valid_utf8(std::string_view text) {
  return valid_utf8_length(text) == text.size();
}
/// Each byte that belongs to no character becomes U+FFFD, as SentencePiece has it.
std::string replace_invalid_utf8(std::string_view text);
/// Bytes at the end of `text` that more bytes could complete to a character: 0 to 3.
size_t incomplete_utf8_tail(std::string_view text);

/// The last character of a well-formed text that is not empty: where it starts, and its code.
struct LastChar {
  size_t start;
  int32_t code;
};
LastChar last_char(std::string_view text);

enum class CharClass : uint8_t { other, letter, number, space };

/// General category, numbered as utf8proc_category_t.
int category(int32_t code);
CharClass char_class_slow(int32_t code);
const std::array<CharClass, 0x10000>& char_class_table();
/// `table` is char_class_table(), fetched once by the caller.
inline CharClass char_class(const std::array<CharClass, 0x10000>& table, int32_t code) {
  return code < 0x10000 ? table[static_cast<size_t>(code)] : char_class_slow(code);
}

bool is_white_space(int32_t code);  // White_Space
bool is_number(int32_t code);       // N
bool is_punctuation(int32_t code);  // P, and all of ASCII that is printed but no letter or digit
bool is_word_char(int32_t code);    // \w: letters, marks, digits, connectors
bool is_mark(int32_t code);         // M
bool is_nonspacing_mark(int32_t code);  // Mn
bool is_control(int32_t code);          // Cc (without tab and line ends), Cf, Cs, Co
bool is_cjk(int32_t code);              // the ideographs that BERT isolates
/// All of the lower-case mapping, also U+0130 that becomes two characters.
void append_lower(std::string& text, int32_t code);

enum class NormalForm : uint8_t { nfc, nfd, nfkc, nfkd };
std::string normal_form(std::string_view text, NormalForm form);
/// The length of the first grapheme cluster of a well-formed text that is not empty.
size_t grapheme_length(std::string_view text);

/// GPT-2's printable stand-ins: byte -> character, and back (-1 where there is none).
const std::array<int32_t, 256>& byte_characters();
int byte_of_character(int32_t code);

}  // namespace narrow::llm
