// SPDX-License-Identifier: Apache-2.0
// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace narrow {

/// Bytes that the system could hand out now, without swapping: MemAvailable, or what the control
/// groups of this process leave where that is less (pages of files count as free: they are given
/// back). UINT64_MAX where the system does not say. `root` is where /proc and /sys are found.
uint64_t available_memory(const std::filesystem::path& root = "/");

/// "1.2 MB" (powers of 1000), as all that is printed has it.
std::string format_bytes(uint64_t bytes);

}  // namespace narrow
