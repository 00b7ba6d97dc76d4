// SPDX-License-Identifier: Apache-2.0
// Texts for language models, named by the grammar of --data.
#pragma once

#include <string>

namespace narrow::cli {

/// The file of "text:FILE"; throws invalid_argument for another kind.
std::string read_text_data(const std::string& spec);

}  // namespace narrow::cli
