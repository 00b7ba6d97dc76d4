// SPDX-License-Identifier: Apache-2.0
// The keys of a training job as one table, spelt as the flags of `narrow train` with '_' for '-'.
// Internal to pipeline/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/pipeline/train.h"

namespace narrow {

/// Sets one key from text. Throws invalid_argument naming what is possible; an unknown key with the
/// nearest names.
void set_train_key(TrainJob& job, std::string_view key, const std::string& text);

/// How a file may write a key besides as one text: WORD,KEY=VALUE,... as a map, words
/// between spaces as a list.
enum class KeyForm : uint8_t { scalar, map, list };
KeyForm train_key_form(std::string_view key);

std::vector<std::string> train_keys();

}  // namespace narrow
