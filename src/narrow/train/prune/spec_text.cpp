// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/prune/spec_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "narrow/core/error.h"
#include "narrow/core/suggest.h"

namespace narrow::train {

SpecText split_spec(std::string_view text, const char* flag) {
  SpecText out;
  bool first = true;
  while (!text.empty() || first) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string part(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    const size_t equals = part.find('=');
    if (equals == std::string::npos && first) {
      out.word = part;
    } else if (equals == std::string::npos || equals == 0 || equals + 1 == part.size()) {
      throw Error(ErrorCode::invalid_argument, fmt::format("{}: '{}' is no KEY=VALUE", flag, part));
    } else {
      out.keys.emplace_back(part.substr(0, equals), part.substr(equals + 1));
    }
    first = false;
  }
  return out;
}

double number_of(const std::string& key, const std::string& text, double low, double high) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && stop == end && value >= low && value <= high) return value;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{}: '{}' is no number from {} to {}", key, text, low, high));
}

int64_t integer_of(const std::string& key, const std::string& text, int64_t low, int64_t high) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && stop == end && value >= low && value <= high) return value;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{}: '{}' is no integer from {} to {}", key, text, low, high));
}

size_t choice_of(const std::string& key, const std::string& text,
                 std::span<const char* const> names) {
  const auto found = std::find(names.begin(), names.end(), text);
  if (found != names.end()) return static_cast<size_t>(found - names.begin());
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: '{}' is not possible", key, text),
              did_you_mean(text, std::vector<std::string>(names.begin(), names.end())));
}

void unknown_key(const char* flag, const std::string& key, std::span<const char* const> names) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: no key '{}'", flag, key),
              did_you_mean(key, std::vector<std::string>(names.begin(), names.end())));
}

}  // namespace narrow::train
