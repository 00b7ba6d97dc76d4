// SPDX-License-Identifier: Apache-2.0
// A small YAML document as a tree, read with limits: text from outside cannot make it deep, large
// or self-referential. Internal to pipeline/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace narrow {

struct YamlEntry;

struct YamlNode {
  enum class Kind : uint8_t { null, scalar, sequence, map };
  Kind kind = Kind::null;
  std::string text;                // scalar, as written and unquoted
  int line = 0;                    // from 1
  int column = 0;                  // from 1
  std::vector<YamlNode> items;     // sequence
  std::vector<YamlEntry> entries;  // map, in the order of the text
};

struct YamlEntry {
  YamlNode key;
  YamlNode value;
};

/// "recipe.yaml:3:5", for messages.
std::string yaml_place(std::string_view source, const YamlNode& node);

/// The one document of the text; an empty text gives null. Throws invalid_argument with source,
/// line and column: syntax errors, anchors, aliases, tags, a second document, keys that are no
/// scalars or stand twice, and more than kMaxYamlBytes, kMaxYamlNodes, kMaxYamlDepth.
YamlNode parse_yaml(std::string_view text, std::string_view source);

inline constexpr size_t kMaxYamlBytes = size_t{1} << 20;  // recipes have a few kilobytes
inline constexpr size_t kMaxYamlNodes = 100000;
inline constexpr size_t kMaxYamlDepth = 8;  // layers: list of maps of lists is 4

/// The text as a YAML scalar that reads back as the same text: quoted where it has to be.
/// `in_list`: inside [a, b].
enum class YamlContext : uint8_t { block, list };
std::string yaml_scalar(std::string_view text, YamlContext context);

}  // namespace narrow
