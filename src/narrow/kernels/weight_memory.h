// SPDX-License-Identifier: Apache-2.0
// Memory for packed weights, which are read from end to end for every token or image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace narrow::kernels {

/// Holds anything, aligned to 64 bytes, from 2 MiB on in huge pages where the system has them.
/// `what` it is, for the error resource_exhausted.
std::shared_ptr<uint8_t> huge_memory(size_t bytes, const char* what);

/// Holds anything, aligned to 64 bytes, in huge pages where the system has them: without them a
/// core reads 5 to 30 % less per second (virtual machine, AMD EPYC 9004). Small pieces stand behind
/// each other in chunks, each of which is freed when the last of its pieces is. Any thread may ask.
/// Throws resource_exhausted.
std::shared_ptr<uint8_t> weight_memory(size_t bytes);

}  // namespace narrow::kernels
