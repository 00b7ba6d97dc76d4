// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/added_tokens.h"

#include <algorithm>

#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word_char(last_char(text).code);
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word_char(decode_utf8(text).code);
}

size_t trailing_space_start(std::string_view text) {
  while (!text.empty()) {
    const LastChar c = last_char(text);
    if (!is_white_space(c.code)) break;
    text = text.substr(0, c.start);
  }
  return text.size();
}

size_t leading_space_length(std::string_view text) {
  size_t length = 0;
  while (length < text.size()) {
    const Utf8Char c = decode_utf8(text.substr(length));
    if (!is_white_space(c.code)) break;
    length += c.length;
  }
  return length;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    trie_.insert(tokens_[i].content, static_cast<int32_t>(i));
    starts_[static_cast<uint8_t>(tokens_[i].content[0])] = true;
  }
}

void AddedTokens::split(std::string_view text, bool parse_special,
                        const std::function<void(const Section&)>& found) const {
  size_t rest = 0;  // what lies before it is given out
  for (size_t at = 0; at < text.size();) {
    if (!starts_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    const Trie::Match match = trie_.longest(text.substr(at));
    if (match.length == 0) {
      ++at;
      continue;
    }
    // A match that does not count still hides those that overlap it, as in `tokenizers`.
    const AddedToken& token = tokens_[static_cast<size_t>(match.value)];
    size_t begin = at;
    size_t end = at + match.length;
    at = end;
    if (token.special && !parse_special) continue;
    if (token.single_word &&
        (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
      continue;
    }
    if (token.lstrip) begin = std::max(trailing_space_start(text.substr(0, begin)), rest);
    if (token.rstrip) end += leading_space_length(text.substr(end));
    if (rest < begin) found({text.substr(rest, begin - rest), -1});
    found({{}, token.id});
    rest = end;
  }
  if (rest < text.size()) found({text.substr(rest), -1});
}

}  // namespace narrow::llm
