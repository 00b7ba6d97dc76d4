// SPDX-License-Identifier: Apache-2.0
// The JSON in front of a safetensors file, read without building a tree: what it takes is in
// proportion to the tensors it names.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/core/shape.h"

namespace narrow::safetensors {

struct HeaderItem {
  std::string name;
  std::string dtype;
  Dims dims;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct Header {
  std::vector<HeaderItem> items;  // in the order of the text; names may repeat
  std::map<std::string, std::string> metadata;
};

/// Throws corrupt_data for text that is not JSON or not of the format's structure.
Header parse_header(std::string_view json);

}  // namespace narrow::safetensors
