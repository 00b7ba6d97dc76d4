// SPDX-License-Identifier: Apache-2.0
// How small bytes become with deflate (zlib): a plain measure of what they hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace narrow {

/// The size as a zlib stream of level 9.
uint64_t deflated_bytes(std::span<const std::byte> bytes);

}  // namespace narrow
