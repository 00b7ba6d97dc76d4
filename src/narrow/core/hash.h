// SPDX-License-Identifier: Apache-2.0
// A 64-bit fingerprint of content: the same bytes give the same value on every machine. For
// provenance and comparing outputs, not against an adversary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace narrow {

class Hash64 {
 public:
  /// Appends bytes; how they are cut into calls does not matter.
  void add(const void* data, size_t bytes);
  /// Appends the length and the text, so that "ab" + "c" differs from "a" + "bc".
  void add_text(std::string_view text);
  void add_number(int64_t number);

  uint64_t value() const;
  /// Sixteen hexadecimal digits.
  std::string hex() const;

 private:
  void mix(uint64_t word);
  uint64_t state_ = 0x243f6a8885a308d3;  // digits of pi: nothing up the sleeve
  uint64_t pending_ = 0;                 // bytes that do not fill a word yet
  uint64_t total_ = 0;
};

}  // namespace narrow
