// SPDX-License-Identifier: Apache-2.0
#include "narrow/core/hash.h"

#include <fmt/format.h>

#include <cstring>

namespace narrow {
namespace {

// The finalizer of splitmix64 (see rng.h): a bijection in which every input bit reaches every
// output bit.
uint64_t scramble(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t load_little_endian(const unsigned char* p) {
  uint64_t word = 0;
  for (int i = 7; i >= 0; --i) word = (word << 8) | p[i];
  return word;
}

}  // namespace

void Hash64::mix(uint64_t word) {
  state_ = scramble(state_ ^ word) + 0x9e3779b97f4a7c15;
}

void Hash64::add(const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  while (bytes > 0) {
    const auto filled = static_cast<unsigned>(total_ % 8);
    if (filled == 0 && bytes >= 8) {
      mix(load_little_endian(p));
      p += 8;
      bytes -= 8;
      total_ += 8;
      continue;
    }
    pending_ |= uint64_t{*p} << (8 * filled);
    ++p;
    --bytes;
    if (++total_ % 8 == 0) {
      mix(pending_);
      pending_ = 0;
    }
  }
}

void Hash64::add_text(std::string_view text) {
  add_number(static_cast<int64_t>(text.size()));
  add(text.data(), text.size());
}

void Hash64::add_number(int64_t number) {
  const auto u = static_cast<uint64_t>(number);
  unsigned char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(u >> (8 * i));
  add(bytes, sizeof bytes);
}

uint64_t Hash64::value() const {
  return scramble(scramble(state_ ^ pending_) ^ total_);
}

std::string Hash64::hex() const {
  return fmt::format("{:016x}", value());
}

}  // namespace narrow
