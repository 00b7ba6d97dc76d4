// SPDX-License-Identifier: Apache-2.0
// The float formats of language models that are written as a folder or an ONNX file. Internal to
// pipeline/.
#pragma once

#include <string_view>

#include "narrow/core/dtype.h"
#include "narrow/quant/blocks/block_codec.h"

namespace narrow {

/// f32, f16, bf16.
inline bool is_float_format(std::string_view name) {
  return name == "f32" || name == "f16" || name == "bf16";
}

/// The element type in this format (empty: as it is) of what is stored so; blocks become float32.
inline DType float_type(std::string_view format, BlockType stored) {
  const std::string_view name = format.empty() ? to_string(stored) : format;
  if (name == "f16") return DType::float16;
  if (name == "bf16") return DType::bfloat16;
  return DType::float32;
}

/// As reports call it, in GGUF's words.
inline const char* float_type_name(DType dtype) {
  if (dtype == DType::float16) return "F16";
  return dtype == DType::bfloat16 ? "BF16" : "F32";
}

}  // namespace narrow
