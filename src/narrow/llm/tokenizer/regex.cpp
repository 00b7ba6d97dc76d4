// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include "narrow/core/error.h"
#include "narrow/llm/tokenizer/unicode.h"

namespace narrow::llm {
namespace {

constexpr size_t kMaxPattern = 1 << 14;
// Far above what the patterns of real tokenizers need for one word, low enough to fail in seconds.
constexpr uint32_t kMatchLimit = 10'000'000;

// PCRE2's \s knows U+180E, which is no White_Space; its \w lacks marks, connectors and the symbols
// that count as alphabetic, and has the numbers that are no digits.
constexpr const char* kSpaceClass = "\\t-\\r \\x{85}\\p{Z}";
constexpr const char* kWordClass =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200C}\\x{200D}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}"
    "\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";

[[noreturn]] void refuse(const std::string& pattern, const std::string& why) {
  throw Error(ErrorCode::unsupported,
              fmt::format("regular expression '{}': {}", pattern.substr(0, 200), why));
}

class Translator {
 public:
  explicit Translator(const std::string& pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape();
        continue;
      }
      if (in_class_) {
        inside_class(c);
      } else if (c == '[') {
        in_class_ = true;
        class_start_ = at_ + 1;
        if (class_start_ < pattern_.size() && pattern_[class_start_] == '^') ++class_start_;
      }
      out_ += c;
      ++at_;
    }
    return out_;
  }

 private:
  void inside_class(char c) {
    const char next = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    if (c == '&' && next == '&') refuse(pattern_, "intersections of classes are not supported");
    if (c == '[' && next != ':') refuse(pattern_, "classes in classes are not supported");
    if (c == '[') posix_ = true;
    if (c != ']') return;
    if (posix_) {
      posix_ = false;
    } else if (at_ > class_start_) {
      in_class_ = false;
    } else {
      refuse(pattern_, "an empty class");
    }
  }

  void escape() {
    if (at_ + 1 >= pattern_.size()) refuse(pattern_, "ends in a backslash");
    const char c = pattern_[at_ + 1];
    at_ += 2;
    const auto put_class = [&](const char* members, bool negated) {
      if (in_class_ && negated) {
        out_ += '\\';
        out_ += c;
      } else if (in_class_) {
        out_ += members;
      } else {
        out_ += fmt::format("[{}{}]", negated ? "^" : "", members);
      }
    };
    switch (c) {
      case 's':
      case 'S':
        return put_class(kSpaceClass, c == 'S');
      case 'w':
      case 'W':
        return put_class(kWordClass, c == 'W');
      case 'u':
        if (at_ + 4 > pattern_.size()) refuse(pattern_, "\\u without four digits");
        out_ += "\\x{" + pattern_.substr(at_, 4) + "}";
        at_ += 4;
        return;
      case 'h':
      case 'H':
      case 'R':
      case 'X':
      case 'C':
      case 'K':
      case 'Q':
      case 'g':
      case 'k':
        return refuse(pattern_, fmt::format("\\{} is not supported", c));
      default:
        out_ += '\\';
        out_ += c;
    }
  }

  const std::string& pattern_;
  std::string out_;
  size_t at_ = 0;
  size_t class_start_ = 0;
  bool in_class_ = false;
  bool posix_ = false;
};

std::string pcre_message(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

template <auto F>
struct FreeWith {
  template <class T>
  void operator()(T* p) const {
    F(p);
  }
};
using CodeOwner = std::unique_ptr<pcre2_code, FreeWith<pcre2_code_free>>;
using MatchDataOwner = std::unique_ptr<pcre2_match_data, FreeWith<pcre2_match_data_free>>;
using MatchContextOwner = std::unique_ptr<pcre2_match_context, FreeWith<pcre2_match_context_free>>;
using CompileContextOwner =
    std::unique_ptr<pcre2_compile_context, FreeWith<pcre2_compile_context_free>>;

}  // namespace

struct Regex::Code {
  std::string pattern;
  CodeOwner code;
  MatchContextOwner context;
};

std::string translate_regex(const std::string& pattern) {
  return Translator(pattern).run();
}

Regex::Regex(const std::string& pattern) {
  if (pattern.size() > kMaxPattern) refuse(pattern, "longer than 16 KiB");
  if (!is_valid_utf8(pattern)) refuse(pattern, "is not UTF-8");
  const std::string translated = translate_regex(pattern);
  auto code = std::make_shared<Code>();
  code->pattern = pattern;
  const CompileContextOwner compile(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(compile.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Ruby's ^ and $ always mean lines.
  code->code.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK,
      &error, &offset, compile.get()));
  if (!code->code) refuse(pattern, pcre_message(error));
  pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);  // without it the interpreter runs
  code->context.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(code->context.get(), kMatchLimit);
  pcre2_set_heap_limit(code->context.get(), 1 << 16);  // KiB
  code_ = std::move(code);
}

void Regex::each_match(std::string_view text,
                       const std::function<void(size_t, size_t)>& found) const {
  const MatchDataOwner data(pcre2_match_data_create(1, nullptr));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t at = 0;
  size_t last_end = 0;
  bool any = false;
  while (at <= text.size()) {
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(code_->code.get(), subject, text.size(), at, options, data.get(),
                         code_->context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      options |= PCRE2_NO_JIT;
      rc = pcre2_match(code_->code.get(), subject, text.size(), at, options, data.get(),
                       code_->context.get());
    }
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) {
      throw Error(ErrorCode::resource_exhausted,
                  fmt::format("regular expression '{}' at byte {}: {}",
                              code_->pattern.substr(0, 200), at, pcre_message(rc)));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    const size_t begin = range[0];
    const size_t end = range[1];
    if (end > begin) {
      found(begin, end);
      at = end;
    } else {
      // An empty match right behind another match does not count.
      if (!any || begin != last_end) found(begin, end);
      if (end >= text.size()) return;
      at = end + decode_utf8(text.substr(end)).length;
    }
    last_end = end;
    any = true;
  }
}

}  // namespace narrow::llm
