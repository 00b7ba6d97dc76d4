// SPDX-License-Identifier: Apache-2.0
// Decompression into a buffer whose size is known and checked first: nothing is allocated from a
// claim that the compressed bytes could not fulfil.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace narrow {

enum class Wrapper : uint8_t { raw_deflate, gzip };

/// The most bytes that `compressed` bytes of deflate can become: one bit codes 258 bytes at best.
uint64_t largest_inflated(uint64_t compressed);

/// Exactly `size` bytes; throws corrupt_data naming `what` when the stream holds fewer or more.
std::vector<std::byte> inflate_exactly(std::span<const std::byte> compressed, uint64_t size,
                                       Wrapper wrapper, const std::string& what);

/// The first bytes of a stream, at most `size`: for headers that say how much follows.
std::vector<std::byte> inflate_prefix(std::span<const std::byte> compressed, uint64_t size,
                                      Wrapper wrapper, const std::string& what);

/// Whether the bytes begin as a gzip file does.
bool is_gzip(std::span<const std::byte> bytes);

uint32_t crc32_of(std::span<const std::byte> bytes);

}  // namespace narrow
