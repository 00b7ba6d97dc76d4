// SPDX-License-Identifier: Apache-2.0
// Texts for language models, named by the grammar of --data.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace narrow::cli {

/// The file of "text:FILE"; throws invalid_argument for another kind.
std::string read_text_data(const std::string& spec);

/// Without the newlines; one at the end of the text starts no further line.
std::vector<std::string_view> lines_of(std::string_view text);

}  // namespace narrow::cli
