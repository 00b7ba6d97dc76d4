// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/regex.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

using Step = PreTokenizer::Step;
using Kind = PreTokenizerStep::Kind;

/// A stretch of a word: a match of the delimiter, or what lies between matches.
struct Part {
  Span span;
  bool is_match;
};

/// Joins or drops parts as the behaviour says. The parts cover the word.
void join_parts(std::vector<Part>& parts, SplitBehavior behavior, std::vector<Span>& out) {
  const auto put = [&out](Span s) {
    if (s.end > s.begin) out.push_back(s);
  };
  const size_t first = out.size();
  bool previous = false;
  switch (behavior) {
    case SplitBehavior::isolated:
      for (const Part& p : parts) put(p.span);
      return;
    case SplitBehavior::removed:
      for (const Part& p : parts) {
        if (!p.is_match) put(p.span);
      }
      return;
    case SplitBehavior::contiguous:
    case SplitBehavior::merged_with_previous:
      for (const Part& p : parts) {
        const bool join = behavior == SplitBehavior::contiguous ? p.is_match == previous
                                                                : p.is_match && !previous;
        if (join && out.size() > first) {
          out.back().end = p.span.end;
        } else {
          put(p.span);
        }
        previous = p.is_match;
      }
      return;
    case SplitBehavior::merged_with_next:
      for (size_t i = parts.size(); i-- > 0;) {
        const Part& p = parts[i];
        if (p.is_match && !previous && out.size() > first) {
          out.back().begin = p.span.begin;
        } else {
          put(p.span);
        }
        previous = p.is_match;
      }
      std::reverse(out.begin() + static_cast<ptrdiff_t>(first), out.end());
      return;
  }
}

/// A step that cuts every word by itself and changes no text.
template <class Cut>
struct CutStep final : Step {
  explicit CutStep(Cut c) : cut(std::move(c)) {}
  void run(Words& words) const override {
    std::vector<Span> out;
    out.reserve(words.spans.size() + words.text.size() / 4);
    for (const Span span : words.spans) cut(std::string_view(words.text), span, out);
    words.spans = std::move(out);
  }
  Cut cut;
};
template <class Cut>
std::shared_ptr<const Step> cut_step(Cut cut) {
  return std::make_shared<CutStep<Cut>>(std::move(cut));
}

/// Cuts at the characters for which `is` holds.
template <class Is>
std::shared_ptr<const Step> cut_at(Is is, SplitBehavior behavior) {
  return cut_step([is, behavior](std::string_view text, Span span, std::vector<Span>& out) {
    std::vector<Part> parts;
    uint32_t rest = span.begin;
    for (uint32_t i = span.begin; i < span.end;) {
      const Utf8Char c = decode_utf8(text.substr(i));
      if (is(c.code)) {
        if (rest < i) parts.push_back({{rest, i}, false});
        rest = i + c.length;
        parts.push_back({{i, rest}, true});
      }
      i += c.length;
    }
    if (rest < span.end) parts.push_back({{rest, span.end}, false});
    join_parts(parts, behavior, out);
  });
}

std::shared_ptr<const Step> cut_words(WordPattern pattern) {
  return cut_step([pattern](std::string_view text, Span span, std::vector<Span>& out) {
    split_words(pattern, text, span, out);
  });
}

/// `each(text, found)` calls found(begin, end) for each match.
template <class Each>
std::shared_ptr<const Step> cut_at_matches(Each each, SplitBehavior behavior, bool invert) {
  return cut_step(
      [each, behavior, invert](std::string_view text, Span span, std::vector<Span>& out) {
        std::vector<Part> parts;
        uint32_t rest = span.begin;
        each(text.substr(span.begin, span.end - span.begin), [&](size_t begin, size_t end) {
          const auto b = span.begin + static_cast<uint32_t>(begin);
          const auto e = span.begin + static_cast<uint32_t>(end);
          if (rest < b) parts.push_back({{rest, b}, invert});
          parts.push_back({{b, e}, !invert});
          rest = e;
        });
        if (rest < span.end) parts.push_back({{rest, span.end}, invert});
        join_parts(parts, behavior, out);
      });
}

std::shared_ptr<const Step> split_step(const PreTokenizerStep& s) {
  const bool covers =
      (s.behavior == SplitBehavior::isolated) || (s.behavior == SplitBehavior::removed && s.invert);
  if (s.is_regex && covers) {
    if (const auto known = known_word_pattern(s.pattern)) return cut_words(*known);
  }
  if (s.is_regex) {
    return cut_at_matches(
        [regex = Regex(s.pattern)](std::string_view text, auto&& found) {
          regex.each_match(text, found);
        },
        s.behavior, s.invert);
  }
  return cut_at_matches(
      [what = s.pattern](std::string_view text, auto&& found) {
        if (what.empty()) return;
        for (size_t at = 0; (at = text.find(what, at)) != std::string_view::npos;) {
          found(at, at + what.size());
          at += what.size();
        }
      },
      s.behavior, s.invert);
}

/// Runs of word characters and runs of other signs, white space dropped.
void cut_whitespace(std::string_view text, Span span, std::vector<Span>& out) {
  enum class Run { none, word, sign };
  Run run = Run::none;
  for (uint32_t i = span.begin; i < span.end;) {
    const Utf8Char c = decode_utf8(text.substr(i));
    const Run kind = is_word_char(c.code)     ? Run::word
                     : is_white_space(c.code) ? Run::none
                                              : Run::sign;
    const uint32_t end = i + c.length;
    if (kind != Run::none && kind == run) {
      out.back().end = end;
    } else if (kind != Run::none) {
      out.push_back({i, end});
    }
    run = kind;
    i = end;
  }
}

/// Calls f(word, text so far) for each word and lets it append to a new text.
template <class F>
void rewrite(Words& words, F&& f) {
  Words result;
  result.at_start = words.at_start;
  result.text.reserve(words.text.size() + words.text.size() / 2 + 16);
  for (const Span s : words.spans) {
    const std::string_view word = std::string_view(words.text).substr(s.begin, s.end - s.begin);
    const auto begin = static_cast<uint32_t>(result.text.size());
    f(word, s.begin == 0 && words.at_start, result.text);
    result.spans.push_back({begin, static_cast<uint32_t>(result.text.size())});
  }
  if (result.text.size() > UINT32_MAX / 2) {
    throw Error(ErrorCode::resource_exhausted, "the text is too long for its pre-tokenizer");
  }
  words = std::move(result);
}

struct MetaspaceStep final : Step {
  explicit MetaspaceStep(const PreTokenizerStep& s)
      : replacement(s.replacement), prepend(s.prepend) {
    if (s.split) {
      const int32_t code = decode_utf8(replacement).code;
      split = cut_at([code](int32_t c) { return c == code; }, SplitBehavior::merged_with_next);
    }
  }
  void run(Words& words) const override {
    rewrite(words, [this](std::string_view word, bool first, std::string& out) {
      const bool wanted =
          prepend == PrependScheme::always || (prepend == PrependScheme::first && first);
      if (wanted && !word.starts_with(' ') && !word.starts_with(replacement)) out += replacement;
      for (const char c : word) {
        if (c == ' ') {
          out += replacement;
        } else {
          out += c;
        }
      }
    });
    if (split) split->run(words);
  }
  std::string replacement;
  PrependScheme prepend;
  std::shared_ptr<const Step> split;
};

struct ByteLevelStep final : Step {
  ByteLevelStep(const PreTokenizerStep& s, bool keep)
      : add_prefix_space(s.add_prefix_space), keep_bytes(keep) {
    if (s.use_regex) split = cut_words(WordPattern::gpt2);
  }
  void run(Words& words) const override {
    if (add_prefix_space) {
      rewrite(words, [](std::string_view word, bool, std::string& out) {
        if (!word.starts_with(' ')) out += ' ';
        out += word;
      });
    }
    if (split) split->run(words);
    if (keep_bytes) return;
    rewrite(words, [](std::string_view word, bool, std::string& out) {
      for (const char c : word) append_utf8(out, byte_characters()[static_cast<uint8_t>(c)]);
    });
  }
  bool add_prefix_space, keep_bytes;
  std::shared_ptr<const Step> split;
};

std::shared_ptr<const Step> make_step(const PreTokenizerStep& s, bool keep_bytes) {
  switch (s.kind) {
    case Kind::byte_level:
      return std::make_shared<ByteLevelStep>(s, keep_bytes);
    case Kind::split:
      return split_step(s);
    case Kind::whitespace:
      return cut_step(cut_whitespace);
    case Kind::whitespace_split:
      return cut_at(is_white_space, SplitBehavior::removed);
    case Kind::bert: {
      return cut_step([spaces = cut_at(is_white_space, SplitBehavior::removed),
                       signs = cut_at(is_punctuation, SplitBehavior::isolated)](
                          std::string_view text, Span span, std::vector<Span>& out) {
        Words words{std::string(text.substr(span.begin, span.end - span.begin)), {}};
        words.spans = {{0, span.end - span.begin}};
        spaces->run(words);
        signs->run(words);
        for (const Span s2 : words.spans) {
          out.push_back({s2.begin + span.begin, s2.end + span.begin});
        }
      });
    }
    case Kind::metaspace:
      return std::make_shared<MetaspaceStep>(s);
    case Kind::digits:
      return cut_at(is_number,
                    s.individual_digits ? SplitBehavior::isolated : SplitBehavior::contiguous);
    case Kind::punctuation:
      return cut_at(is_punctuation, s.behavior);
  }
  throw Error(ErrorCode::internal, "unknown kind of pre-tokenizer");
}

}  // namespace

PreTokenizer::PreTokenizer(const std::vector<PreTokenizerStep>& steps, bool keep_bytes) {
  for (const PreTokenizerStep& s : steps) steps_.push_back(make_step(s, keep_bytes));
}

void PreTokenizer::run(Words& words) const {
  for (const auto& step : steps_) step->run(words);
}

}  // namespace narrow::llm
