// SPDX-License-Identifier: Apache-2.0
#include "text.h"

#include <fmt/format.h>

#include <algorithm>

#include "narrow/core/error.h"
#include "narrow/core/file.h"

namespace narrow::cli {

std::string read_text_data(const std::string& spec) {
  constexpr std::string_view kKind = "text:";
  if (!spec.starts_with(kKind)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("--data {}: is no text", spec),
                "name a file as text:FILE");
  }
  constexpr size_t kMostBytes = size_t{1} << 29;
  return read_text(spec.substr(kKind.size()), kMostBytes);
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace narrow::cli
