// SPDX-License-Identifier: Apache-2.0
// How small bytes become with deflate (zlib): a plain measure of what they hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace narrow {

/// The size as a zlib stream of level 6, what packagers take. (Level 9 searches for minutes in
/// models full of zeros, and saves a percent.)
uint64_t deflated_bytes(std::span<const std::byte> bytes);

}  // namespace narrow
