// SPDX-License-Identifier: Apache-2.0
// Reads tests/goldens/quant.txt, which make_quant.py wrote.
#pragma once

#include <bit>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "narrow/quant/scheme.h"

namespace narrow::golden {

/// The lines of one case: key -> words.
struct Case {
  std::string source;
  std::map<std::string, std::vector<std::string>> lines;

  const std::vector<std::string>& words(const std::string& key) const {
    static const std::vector<std::string> none;
    const auto it = lines.find(key);
    return it == lines.end() ? none : it->second;
  }
  std::vector<float> floats(const std::string& key) const {
    std::vector<float> out;
    for (const std::string& w : words(key)) {
      out.push_back(std::bit_cast<float>(static_cast<uint32_t>(std::stoul(w, nullptr, 16))));
    }
    return out;
  }
  std::vector<int64_t> ints(const std::string& key) const {
    std::vector<int64_t> out;
    for (const std::string& w : words(key)) out.push_back(std::stoll(w));
    return out;
  }
};

inline std::vector<Case> read(const std::string& source) {
  std::ifstream file(NARROW_SOURCE_DIR "/tests/goldens/quant.txt");
  std::vector<Case> cases;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream text(line);
    std::string key;
    std::string word;
    text >> key;
    if (key == "case") {
      cases.emplace_back();
      text >> cases.back().source;
      continue;
    }
    while (text >> word) cases.back().lines[key].push_back(word);
  }
  std::erase_if(cases, [&](const Case& c) { return c.source != source; });
  return cases;
}

template <class Enum>
Enum enum_named(const std::string& name, std::initializer_list<Enum> all) {
  for (const Enum e : all) {
    if (name == to_string(e)) return e;
  }
  throw std::runtime_error("no enumerator is called " + name);
}

inline Scheme scheme_of(const Case& c) {
  const auto& w = c.words("scheme");
  Scheme s;
  s.bits = std::stoi(w[0]);
  s.is_signed = w[1] == "1";
  s.narrow_range = w[2] == "1";
  s.symmetry = enum_named(w[3], {Symmetry::symmetric, Symmetry::asymmetric, Symmetry::offset});
  s.granularity = enum_named(w[4], {Granularity::per_tensor, Granularity::per_axis,
                                    Granularity::per_group, Granularity::per_token});
  s.axis = std::stoll(w[5]);
  s.group_size = std::stoll(w[6]);
  s.scale_type = enum_named(
      w[7], {ScaleType::float32, ScaleType::float16, ScaleType::bfloat16, ScaleType::power_of_two});
  return s;
}

}  // namespace narrow::golden
