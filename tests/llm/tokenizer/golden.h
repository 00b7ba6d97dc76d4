// SPDX-License-Identifier: Apache-2.0
// What the tests of tokenizers share: where the goldens lie, and their hash.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "narrow/core/file.h"
#include "support.h"

namespace narrow::llm {

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(NARROW_SOURCE_DIR) / "tests/goldens/tokenizers" / name;
}

inline nlohmann::json golden_json(const std::string& name) {
  return nlohmann::json::parse(read_text(golden(name)));
}

/// Empty where the folder of real models is absent.
inline std::filesystem::path assets() {
  const std::filesystem::path path = narrow::testing::assets();
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}

/// "count:FNV-1a" over little-endian 32-bit integers, as make_tokenizers.py has it.
template <class T>
std::string hash_of(std::span<const T> values) {
  uint64_t h = 0xCBF29CE484222325;
  for (const T v : values) {
    const auto bits =
        sizeof(T) == 1 ? static_cast<uint32_t>(static_cast<uint8_t>(v)) : static_cast<uint32_t>(v);
    for (int i = 0; i < 4; ++i) h = (h ^ (bits >> (8 * i) & 0xFF)) * 0x100000001B3;
  }
  char text[40];
  std::snprintf(text, sizeof(text), "%zu:%016llx", values.size(),
                static_cast<unsigned long long>(h));
  return text;
}

}  // namespace narrow::llm
