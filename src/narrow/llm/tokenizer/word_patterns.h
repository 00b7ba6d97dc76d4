// SPDX-License-Identifier: Apache-2.0
// The splitting expressions of the common byte-level tokenizers, matched by hand: one pass over the
// text instead of a regular-expression engine. The tests compare them with PCRE2.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace narrow::llm {

struct Span {
  uint32_t begin;
  uint32_t end;
};

enum class WordPattern : uint8_t { gpt2, llama3, qwen2 };

/// GPT-2's expression: words, numbers and signs, each with one space before it.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
/// Llama 3's: numbers of at most three digits, line ends apart.
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
/// Qwen 2's: the same with single digits.
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// The pattern that is this expression; none: it takes the engine.
std::optional<WordPattern> known_word_pattern(std::string_view expression);

/// Appends the words of text[range]; they cover it without gaps. `text` is well-formed UTF-8.
void split_words(WordPattern pattern, std::string_view text, Span range, std::vector<Span>& out);

}  // namespace narrow::llm
