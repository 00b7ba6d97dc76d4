// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/version.h"

namespace narrow {

const char* const kVersion = NARROW_VERSION;

}  // namespace narrow
