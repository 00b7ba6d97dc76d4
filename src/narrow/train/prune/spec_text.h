// SPDX-License-Identifier: Apache-2.0
// Texts of the form WORD,KEY=VALUE,... read by a table of keys. Internal to prune/.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace narrow::train {

struct SpecText {
  std::string word;  // before the first comma, where it has no '='
  std::vector<std::pair<std::string, std::string>> keys;
};
/// Throws invalid_argument, naming `flag`, for a part that is neither.
SpecText split_spec(std::string_view text, const char* flag);

/// A number in low..high; throws invalid_argument naming the key.
double number_of(const std::string& key, const std::string& text, double low, double high);
int64_t integer_of(const std::string& key, const std::string& text, int64_t low, int64_t high);
/// The index of a name; throws invalid_argument with the nearest.
size_t choice_of(const std::string& key, const std::string& text,
                 std::span<const char* const> names);
[[noreturn]] void unknown_key(const char* flag, const std::string& key,
                              std::span<const char* const> names);

}  // namespace narrow::train
