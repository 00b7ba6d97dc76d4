// SPDX-License-Identifier: Apache-2.0
// A sum without rounding: a 576-bit two's complement integer in units of 2^-192. Addition is exact,
// so any order and any split of the terms give the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace narrow {

class ExactSum {
 public:
  static constexpr int kLowestExponent = -192;
  static constexpr int kLimbs = 9;

  /// Adds value * 2^exponent, -192 <= exponent <= 300. Room for 2^19 of the largest such terms.
  void add(int64_t value, int exponent);
  /// Adds a finite float exactly.
  void add(float value);
  void add(const ExactSum& other);

  /// The nearest double.
  double value() const;
  operator double() const { return value(); }

  /// "0", "-0x1f3ap-140": the exact value as a hexadecimal integer times a power of two.
  std::string to_text() const;
  /// nullopt for text that to_text() does not write.
  static std::optional<ExactSum> from_text(std::string_view text);

  friend bool operator==(const ExactSum&, const ExactSum&) = default;

 private:
  bool negative() const { return static_cast<int64_t>(limbs_.back()) < 0; }
  void negate();

  std::array<uint64_t, kLimbs> limbs_{};  // least significant first
};

}  // namespace narrow
