// SPDX-License-Identifier: Apache-2.0
// A line on stderr that shows how far a stage is, and the flag that Ctrl-C sets.
#pragma once

#include <cstdint>
#include <string>

namespace narrow::cli {

/// "calibrate  [########------------]  40 %  200/500", at most `width` characters.
std::string progress_line(const std::string& stage, int64_t done, int64_t total, int width);

/// Removes the bar, if there is one, so that other text can be printed.
void clear_progress_bar();

}  // namespace narrow::cli
