// SPDX-License-Identifier: Apache-2.0
#include "narrow/data/label_file.h"

#include <fmt/format.h>

#include <charconv>
#include <map>
#include <optional>

#include "narrow/core/error.h"

namespace narrow {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// Takes one comma-separated column off the front; quotes may hold commas, "" is a quote.
std::optional<std::string> take_column(std::string_view& rest) {
  rest = trimmed(rest);
  std::string out;
  if (rest.empty() || rest[0] != '"') {
    const size_t comma = rest.find(',');
    out = trimmed(rest.substr(0, comma));
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
    return out;
  }
  size_t i = 1;
  for (; i < rest.size(); ++i) {
    if (rest[i] != '"') {
      out += rest[i];
    } else if (i + 1 < rest.size() && rest[i + 1] == '"') {
      out += rest[i++];
    } else {
      break;
    }
  }
  if (i == rest.size()) return std::nullopt;  // the quote is never closed
  rest.remove_prefix(i + 1);
  rest = trimmed(rest);
  if (!rest.empty()) {
    if (rest[0] != ',') return std::nullopt;
    rest.remove_prefix(1);
  }
  return out;
}

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

/// The two columns of a line; the label may still be no number (a heading).
std::optional<std::pair<std::string, std::string>> split_line(std::string_view line) {
  if (line.find(',') == std::string_view::npos) {
    const size_t space = line.find_last_of(" \t");
    if (space == std::string_view::npos) return std::nullopt;
    return std::pair(std::string(trimmed(line.substr(0, space))),
                     std::string(trimmed(line.substr(space))));
  }
  auto file = take_column(line);
  if (!file) return std::nullopt;
  auto label = take_column(line);
  if (!label) return std::nullopt;
  return std::pair(std::move(*file), std::move(*label));
}

}  // namespace

std::vector<LabelLine> parse_label_file(std::string_view text, const std::string& what) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  std::vector<LabelLine> lines;
  std::map<std::string, int64_t> seen;
  int64_t number = 0;
  bool heading_allowed = true;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = trimmed(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    ++number;
    if (line.empty()) continue;
    const auto columns = split_line(line);
    const auto label = columns ? whole_number(columns->second) : std::nullopt;
    if (!label && heading_allowed) {
      heading_allowed = false;
      continue;
    }
    heading_allowed = false;
    const auto fail = [&](std::string_view why) {
      throw Error(ErrorCode::corrupt_data, fmt::format("{}: line {}: {}", what, number, why),
                  "lines are FILE,LABEL with the label a whole number from 0");
    };
    if (!label || columns->first.empty()) fail("no file name and label");
    if (*label < 0) fail("the label is negative");
    const auto [other, is_new] = seen.emplace(columns->first, number);
    if (!is_new) fail(fmt::format("'{}' stands in line {} too", columns->first, other->second));
    lines.push_back({columns->first, *label, number});
  }
  if (lines.empty()) {
    throw Error(ErrorCode::corrupt_data, fmt::format("{}: names no pictures", what),
                "lines are FILE,LABEL with the label a whole number from 0");
  }
  return lines;
}

}  // namespace narrow
