// SPDX-License-Identifier: Apache-2.0
// Lists of pictures with labels: "file,label" with further columns ignored, or "file label". A
// heading, quotes, a byte order mark and Windows line ends are accepted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace narrow {

struct LabelLine {
  std::string file;
  int64_t label = 0;
  int64_t number = 0;  // of the line, from 1
};

/// Throws corrupt_data naming `what` and the line.
std::vector<LabelLine> parse_label_file(std::string_view text, const std::string& what);

}  // namespace narrow
