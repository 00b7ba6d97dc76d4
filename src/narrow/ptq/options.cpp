// SPDX-License-Identifier: Apache-2.0
#include "narrow/ptq/options.h"

#include <fmt/format.h>

namespace narrow {
namespace {

/// The enumerator among 0..Count-1 whose to_string() is `name`.
template <class Enum, int Count>
std::optional<Enum> enum_from_string(std::string_view name) {
  for (int i = 0; i < Count; ++i) {
    if (name == to_string(static_cast<Enum>(i))) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace

const char* to_string(Mode mode) {
  switch (mode) {
    case Mode::static_:
      return "static";
    case Mode::dynamic:
      return "dynamic";
    case Mode::weight_only:
      return "weight_only";
  }
  return "?";
}

const char* to_string(BiasCorrection kind) {
  switch (kind) {
    case BiasCorrection::automatic:
      return "auto";
    case BiasCorrection::none:
      return "none";
    case BiasCorrection::fast:
      return "fast";
    case BiasCorrection::empirical:
      return "empirical";
  }
  return "?";
}

std::optional<Mode> mode_from_string(std::string_view name) {
  return enum_from_string<Mode, 3>(name);
}
std::optional<Symmetry> symmetry_from_string(std::string_view name) {
  return enum_from_string<Symmetry, 3>(name);
}
std::optional<Granularity> granularity_from_string(std::string_view name) {
  return enum_from_string<Granularity, 4>(name);
}
std::optional<ScaleType> scale_type_from_string(std::string_view name) {
  return enum_from_string<ScaleType, 4>(name);
}
std::optional<BiasCorrection> bias_correction_from_string(std::string_view name) {
  return enum_from_string<BiasCorrection, 4>(name);
}

std::string NumberType::text() const {
  return fmt::format("{}{}", floating ? "float" : (is_signed ? "int" : "uint"), bits);
}

std::optional<NumberType> number_type_from_string(std::string_view name) {
  for (const int bits : {2, 3, 4, 5, 6, 7, 8, 16}) {
    for (const bool is_signed : {true, false}) {
      const NumberType type{false, is_signed, bits};
      if (type.text() == name) return type;
    }
  }
  for (const int bits : {16, 32}) {
    const NumberType type{true, true, bits};
    if (type.text() == name) return type;
  }
  return std::nullopt;
}

bool glob_match(std::string_view pattern, std::string_view text) {
  // The last star may take one character more whenever the rest fails: linear in practice, at most
  // quadratic, no recursion.
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace narrow
