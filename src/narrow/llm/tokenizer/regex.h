// SPDX-License-Identifier: Apache-2.0
// Regular expressions of tokenizer files. They are written for Oniguruma (Ruby syntax) and run by
// PCRE2; what the two read differently is translated or refused.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace narrow::llm {

class Regex {
 public:
  /// Throws unsupported, naming the pattern and what is wrong with it.
  explicit Regex(const std::string& pattern);

  /// Calls `found(begin, end)` for each match, left to right, without overlaps; matches of length 0
  /// included. `text` is well-formed UTF-8. Throws resource_exhausted where the search explodes.
  void each_match(std::string_view text,
                  const std::function<void(size_t begin, size_t end)>& found) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;  // shared by copies; matching does not change it
};

/// The same expression in PCRE2's syntax.
std::string translate_regex(const std::string& pattern);

}  // namespace narrow::llm
