// SPDX-License-Identifier: Apache-2.0
// The text files of a Hugging Face folder for a model of any kind of file: copied from the folder
// that it came from, or written from what a GGUF file says.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "narrow/llm/checkpoint.h"

namespace narrow::llm {

/// What stands before the names of these files in the metadata of an ONNX file: "hf/config.json",
/// "hf/tokenizer.json", ...
inline constexpr std::string_view kHfPrefix = "hf/";

/// A text file that describes a model, its tokenizer, its generation or its sentence vectors.
struct HfFile {
  const char* name;         // path in the folder
  bool older_form = false;  // says what tokenizer.json and tokenizer_config.json say
};
std::span<const HfFile> hf_file_table();

/// By their paths in the folder: config.json, and what the model has of tokenizer.json,
/// tokenizer_config.json, generation_config.json, chat_template.jinja, 1_Pooling/config.json and
/// others. `dtype` is the weights' ("bfloat16"), as config.json gives it. Throws unsupported for a
/// config or a tokenizer that these files cannot express.
std::map<std::string, std::string> hf_files(const Checkpoint& checkpoint, std::string_view dtype);

}  // namespace narrow::llm
