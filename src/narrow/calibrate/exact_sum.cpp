// SPDX-License-Identifier: Apache-2.0
#include "narrow/calibrate/exact_sum.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>

namespace narrow {
namespace {

constexpr int kBits = ExactSum::kLimbs * 64;

}  // namespace

void ExactSum::add(int64_t value, int exponent) {
  const int position = exponent - kLowestExponent;
  const int shift = position % 64;
  // The value as three limbs, sign-extended: 64 bits moved up by less than 64.
  const auto low = static_cast<uint64_t>(value);
  const uint64_t sign = value < 0 ? ~uint64_t{0} : 0;
  const uint64_t first = low << shift;
  const uint64_t second = shift == 0 ? sign : (low >> (64 - shift)) | (sign << shift);
  uint64_t carry = 0;
  for (int i = position / 64, part = 0; i < kLimbs; ++i, ++part) {
    const uint64_t term = part == 0 ? first : part == 1 ? second : sign;
    const uint64_t sum = limbs_[i] + term;
    const uint64_t with_carry = sum + carry;
    carry = (sum < term ? 1 : 0) | (with_carry < sum ? 1 : 0);
    limbs_[i] = with_carry;
  }
}

void ExactSum::add(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const int exponent = static_cast<int>((bits >> 23) & 0xff);
  const int64_t fraction = bits & 0x7fffff;
  const int64_t mantissa = exponent > 0 ? fraction | 0x800000 : fraction;
  add((bits >> 31) != 0 ? -mantissa : mantissa, std::max(exponent, 1) - 150);
}

void ExactSum::add(const ExactSum& other) {
  uint64_t carry = 0;
  for (int i = 0; i < kLimbs; ++i) {
    const uint64_t sum = limbs_[i] + other.limbs_[i];
    const uint64_t with_carry = sum + carry;
    carry = (sum < other.limbs_[i] ? 1 : 0) | (with_carry < sum ? 1 : 0);
    limbs_[i] = with_carry;
  }
}

void ExactSum::negate() {
  uint64_t carry = 1;
  for (uint64_t& limb : limbs_) {
    limb = ~limb + carry;
    carry = carry != 0 && limb == 0 ? 1 : 0;
  }
}

double ExactSum::value() const {
  ExactSum size = *this;
  if (negative()) size.negate();
  int top = kLimbs - 1;
  while (top >= 0 && size.limbs_[top] == 0) --top;
  if (top < 0) return 0;
  // The 64 leading bits, the lowest of them standing for everything below: enough for one rounding.
  const int shift = std::countl_zero(size.limbs_[top]);
  uint64_t leading = size.limbs_[top] << shift;
  if (top > 0 && shift > 0) leading |= size.limbs_[top - 1] >> (64 - shift);
  bool rest = top > 0 && (size.limbs_[top - 1] << shift) != 0;
  for (int i = 0; i < top - 1; ++i) rest = rest || size.limbs_[i] != 0;
  leading |= rest ? 1 : 0;
  const double magnitude =
      std::ldexp(static_cast<double>(leading), top * 64 - shift + kLowestExponent);
  return negative() ? -magnitude : magnitude;
}

std::string ExactSum::to_text() const {
  ExactSum size = *this;
  if (negative()) size.negate();
  std::string digits;
  for (int i = kLimbs - 1; i >= 0; --i) digits += fmt::format("{:016x}", size.limbs_[i]);
  const size_t first = digits.find_first_not_of('0');
  if (first == std::string::npos) return "0";
  const size_t last = digits.find_last_not_of('0');
  const int exponent = kLowestExponent + 4 * static_cast<int>(digits.size() - 1 - last);
  return fmt::format("{}0x{}p{}", negative() ? "-" : "", digits.substr(first, last - first + 1),
                     exponent);
}

std::optional<ExactSum> ExactSum::from_text(std::string_view text) {
  ExactSum sum;
  if (text == "0") return sum;
  const bool minus = text.starts_with('-');
  if (minus) text.remove_prefix(1);
  if (!text.starts_with("0x")) return std::nullopt;
  text.remove_prefix(2);
  const size_t p = text.find('p');
  if (p == 0 || p == std::string_view::npos || p > kBits / 4) return std::nullopt;
  int exponent = 0;
  const std::string_view power = text.substr(p + 1);
  const auto end = power.data() + power.size();
  const auto [stop, error] = std::from_chars(power.data(), end, exponent);
  if (error != std::errc() || stop != end) return std::nullopt;
  // Digits must lie on the grid of 4-bit positions and below the sign bit.
  if (exponent < kLowestExponent || exponent > kLowestExponent + kBits) return std::nullopt;
  const int lowest = exponent - kLowestExponent;
  if (lowest % 4 != 0 || lowest + 4 * static_cast<int>(p) > kBits) return std::nullopt;
  for (size_t i = 0; i < p; ++i) {
    unsigned digit = 0;
    const char* at = text.data() + i;
    const auto [digit_end, digit_error] = std::from_chars(at, at + 1, digit, 16);
    if (digit_error != std::errc() || digit_end != at + 1) return std::nullopt;
    const int position = lowest + 4 * static_cast<int>(p - 1 - i);
    sum.limbs_[position / 64] |= uint64_t{digit} << (position % 64);
  }
  if (sum.negative()) return std::nullopt;
  if (minus) sum.negate();
  return sum;
}

}  // namespace narrow
