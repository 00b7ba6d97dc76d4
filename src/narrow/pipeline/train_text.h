// SPDX-License-Identifier: Apache-2.0
// Texts as sequences that a language model learns from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/data/dataset.h"

namespace narrow {

/// "text:FILE[,context=N][,tokens=N][,chunks=N]" as a DataSpec of kind "text". Throws
/// invalid_argument naming the part that is wrong.
DataSpec parse_text_spec(std::string_view spec);
bool is_text_spec(std::string_view spec);

/// The file's text. Throws not_found, io_error.
std::string read_text_of(const DataSpec& spec);
/// An option as a number from 1 on, or `otherwise`. Throws invalid_argument.
int64_t number_of(const DataSpec& spec, const char* option, int64_t otherwise);

/// The text as it runs, cut in sequences of `context` tokens: sample i is tokens [i * context,
/// (i + 1) * context), its labels, `context` for each sample, the tokens after each of them. Inputs
/// are those of a decoder's graph: input_ids, position. Throws invalid_argument for a text shorter
/// than a sequence and one token.
std::unique_ptr<Dataset> packed_text(std::vector<int32_t> ids, int64_t context);

}  // namespace narrow
