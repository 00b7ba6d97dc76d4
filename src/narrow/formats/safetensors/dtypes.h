// SPDX-License-Identifier: Apache-2.0
// Names of element types in safetensors files.
#pragma once

#include <string_view>

#include "narrow/core/dtype.h"

namespace narrow::safetensors {

struct DTypeRow {
  std::string_view name;
  int bits;
  DType dtype;  // undefined: known by size only
};

/// Null for an unknown name.
const DTypeRow* find_dtype(std::string_view name);
/// Null for a type that the format does not have.
const DTypeRow* find_dtype(DType dtype);

}  // namespace narrow::safetensors
