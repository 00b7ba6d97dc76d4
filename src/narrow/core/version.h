// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace narrow {

/// "0.1.0": the version of the build.
extern const char* const kVersion;

}  // namespace narrow
