// SPDX-License-Identifier: Apache-2.0
// The keys of a training job as one table, spelt as the flags of `narrow train` with '_' for '-'.
// Internal to pipeline/.
#pragma once

#include <string>
#include <string_view>

#include "narrow/pipeline/train.h"

namespace narrow {

/// Sets one key from text. Throws invalid_argument naming what is possible; an unknown key with the
/// nearest names.
void set_train_key(TrainJob& job, std::string_view key, const std::string& text);

/// Whether the key's text is a list WORD,KEY=VALUE,..., which a file may write as a map.
bool is_train_map(std::string_view key);

}  // namespace narrow
