// SPDX-License-Identifier: Apache-2.0
// The idx format of MNIST: two zero bytes, a type, the rank, big-endian sizes, big-endian values.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "narrow/core/tensor.h"

namespace narrow {

/// gzip is recognised by its first bytes. Plain uint8 and int8 data are not copied while `owner`
/// lives. Throws corrupt_data or unsupported, naming `what`.
Tensor parse_idx(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                 const std::string& what);
Tensor read_idx(const std::filesystem::path& path);

}  // namespace narrow
