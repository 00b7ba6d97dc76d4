// SPDX-License-Identifier: Apache-2.0
// The known name nearest to a misspelt one, for hints.
//
//   throw Error(invalid_argument, "unknown option 'reszie'", did_you_mean("reszie", names));
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace narrow {

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `name`, or "" when none is near enough to be a slip of the fingers: at
/// most one edit in three characters.
std::string closest_name(std::string_view name, std::span<const std::string> candidates);

/// "did you mean 'resize'? known: crop, resize" or, with nothing near, "known: crop, resize".
std::string did_you_mean(std::string_view name, std::span<const std::string> candidates);

}  // namespace narrow
