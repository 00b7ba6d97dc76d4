// SPDX-License-Identifier: Apache-2.0
// Finds and loads libnarrow_train.so.
#pragma once

#include "narrow/train/plugin.h"

namespace narrow::train {

/// The library beside the program (../lib), in the system's places, or where NARROW_TRAIN_LIBRARY
/// says; loaded once, stays loaded. Throws unsupported saying what is missing and how to get it.
const Plugin& load_plugin();

}  // namespace narrow::train
