// SPDX-License-Identifier: Apache-2.0
// The hand-written matchers cut as PCRE2 does with the same expression.
#include "narrow/llm/tokenizer/word_patterns.h"

#include <gtest/gtest.h>

#include "narrow/core/error.h"
#include "narrow/core/rng.h"
#include "narrow/llm/tokenizer/regex.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

std::vector<std::string> cut_by_hand(WordPattern pattern, const std::string& text) {
  std::vector<Span> spans;
  split_words(pattern, text, {0, static_cast<uint32_t>(text.size())}, spans);
  std::vector<std::string> words;
  for (const Span s : spans) words.push_back(text.substr(s.begin, s.end - s.begin));
  return words;
}

std::vector<std::string> cut_by_regex(const Regex& regex, const std::string& text) {
  std::vector<std::string> words;
  regex.each_match(
      text, [&](size_t begin, size_t end) { words.push_back(text.substr(begin, end - begin)); });
  return words;
}

/// Characters around which the expressions decide, and some of every kind.
std::string random_text(Rng& rng) {
  static const std::vector<std::string> kAtoms = {" ",
                                                  " ",
                                                  "  ",
                                                  "\n",
                                                  "\r",
                                                  "\t",
                                                  "\xC2\xA0",
                                                  "\xE3\x80\x80",
                                                  "\xE1\xA0\x8E",
                                                  "\xC2\x85",
                                                  "'",
                                                  "'s",
                                                  "'S",
                                                  "'\xC5\xBF",
                                                  "'re",
                                                  "'Re",
                                                  "'VE",
                                                  "'ll",
                                                  "'lL",
                                                  "'d",
                                                  "'m",
                                                  "'t",
                                                  "a",
                                                  "Z",
                                                  "ab",
                                                  "1",
                                                  "23",
                                                  "\xC2\xBD",
                                                  "\xE2\x85\xA7",
                                                  "\xD9\xA3",
                                                  "-",
                                                  "!",
                                                  "...",
                                                  "_",
                                                  "\xC3\xA9",
                                                  "e\xCC\x81",
                                                  "\xE6\x97\xA5",
                                                  "\xF0\x9F\x98\x81",
                                                  "\xE2\x80\x8D",
                                                  "\xC3\x9F",
                                                  "\xE0\xA4\xA8",
                                                  "\xE0\xA4\xBE",
                                                  "\x01",
                                                  "\xEF\xBF\xBD",
                                                  "\xF4\x8F\xBF\xBF",
                                                  "s",
                                                  "l",
                                                  "r",
                                                  "e",
                                                  "v"};
  std::string text;
  const auto size = static_cast<int>(rng.below(24));
  for (int i = 0; i < size; ++i) {
    if (rng.below(8) != 0) {
      text += kAtoms[static_cast<size_t>(rng.below(kAtoms.size()))];
      continue;
    }
    // The engine and utf8proc know different versions of Unicode: Latin to Thai are settled in
    // both.
    append_utf8(text, static_cast<int32_t>(rng.below(0x580)));
  }
  return text;
}

class Pattern : public ::testing::TestWithParam<std::string_view> {};

TEST_P(Pattern, EqualsTheEngineOnRandomTexts) {
  const auto known = known_word_pattern(GetParam());
  ASSERT_TRUE(known.has_value());
  const Regex regex{std::string(GetParam())};
  Rng rng(7);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = random_text(rng);
    ASSERT_EQ(cut_by_hand(*known, text), cut_by_regex(regex, text)) << i << ": '" << text << "'";
  }
}

INSTANTIATE_TEST_SUITE_P(Words, Pattern,
                         ::testing::Values(kGpt2Pattern, kLlama3Pattern, kQwen2Pattern));

TEST(WordPatterns, UnknownExpressionsTakeTheEngine) {
  EXPECT_FALSE(known_word_pattern(R"(\p{L}+)").has_value());
  EXPECT_FALSE(known_word_pattern("").has_value());
}

TEST(Regex, TranslatesWhatTheEnginesReadDifferently) {
  // U+180E is no white space; marks and connectors are part of words, fractions are not.
  EXPECT_EQ(cut_by_regex(Regex(R"(\s)"), "a\xE1\xA0\x8E b").size(), 1u);
  EXPECT_EQ(cut_by_regex(Regex(R"([\s]+)"), "\t\xC2\x85\xE3\x80\x80x").size(), 1u);
  EXPECT_EQ(cut_by_regex(Regex(R"(\w+)"), "e\xCC\x81_1 \xC2\xBD"),
            std::vector<std::string>{"e\xCC\x81_1"});
  EXPECT_EQ(cut_by_regex(Regex(R"(\u00e9)"), "\xC3\xA9").size(), 1u);
  EXPECT_EQ(cut_by_regex(Regex("^b"), "a\nb").size(), 1u);  // ^ means lines
}

TEST(Regex, EmptyMatchesAdvance) {
  std::vector<std::pair<size_t, size_t>> found;
  Regex(R"((?=(\d{3})+(?!\d)))").each_match("1234567", [&](size_t b, size_t e) {
    found.emplace_back(b, e);
  });
  EXPECT_EQ(found, (std::vector<std::pair<size_t, size_t>>{{1, 1}, {4, 4}}));
}

TEST(Regex, RefusesByName) {
  for (const char* pattern :
       {"(", "[a", R"([a&&b])", R"([a[b]])", R"(\h)", R"(\K)", "a\\", "\xFF"}) {
    try {
      const Regex regex{std::string(pattern)};
      ADD_FAILURE() << pattern;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::unsupported) << pattern;
    }
  }
}

TEST(Regex, ASearchThatExplodesIsAnError) {
  const Regex regex("(a+)+$");
  try {
    regex.each_match(std::string(60, 'a') + "c", [](size_t, size_t) {});
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::resource_exhausted) << e.what();
  }
}

}  // namespace
}  // namespace narrow::llm
