// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/portable_math.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "narrow/quant/round.h"

namespace narrow {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// ln 2 in two parts: the first has 21 zero bits at its end, so that k * kLn2High is exact for the
// exponents k of a double.
constexpr double kLn2High = 0x1.62e42feep-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kSqrtHalf = 0x1.6a09e667f3bcdp-1;
constexpr double kTwoOverSqrtPi = 0x1.20dd750429b6dp+0;
constexpr double kOneOverSqrtPi = 0x1.20dd750429b6dp-1;

/// 2^k for a normal result.
double power_of_two(int64_t k) {
  return std::bit_cast<double>(static_cast<uint64_t>(k + 1023) << 52);
}

/// exp(r) - 1 for |r| <= ln(2) / 2: the Taylor series to r^14 / 14!, remainder below 2^-60 of r.
double expm1_reduced(double r) {
  double sum = 1.0 / 14;
  for (int n = 13; n >= 2; --n) sum = (1 + r * sum) / n;
  return r + r * r * sum;
}

struct Reduced {
  int64_t k;
  double r;
};

/// x = k ln 2 + r, for |x| < 2000.
Reduced reduce(double x) {
  const int64_t k = round_half_even_int(x * kLog2E);
  const auto kd = static_cast<double>(k);
  return {k, (x - kd * kLn2High) - kd * kLn2Low};
}

/// v * 2^k in two steps, so that subnormal results are rounded once and 2^k may overflow.
double scale_by_power(double v, int64_t k) {
  const int64_t half = k / 2;
  return v * power_of_two(half) * power_of_two(k - half);
}

struct Split {
  int64_t exponent;
  double mantissa;  // in [sqrt(1/2), sqrt(2))
};

Split split(double x) {
  int64_t exponent = 0;
  if (x < std::numeric_limits<double>::min()) {  // subnormal
    x *= 0x1p54;
    exponent = -54;
  }
  const auto bits = std::bit_cast<uint64_t>(x);
  exponent += static_cast<int64_t>(bits >> 52) - 1022;
  double mantissa =
      std::bit_cast<double>((bits & 0x000fffffffffffffull) | 0x3fe0000000000000ull);  // [1/2, 1)
  if (mantissa < kSqrtHalf) {
    mantissa *= 2;
    --exponent;
  }
  return {exponent, mantissa};
}

/// erf(x) for 0 <= x < 2.5: x exp(-x^2) 2/sqrt(pi) sum (2 x^2)^n / (2n+1)!!, all terms positive.
double erf_series(double x) {
  const double x2 = x * x;
  double term = 1;
  double sum = 1;
  for (int n = 1; n < 64; ++n) {  // at 2.5 the 64th term is below 2^-60 of the sum
    term *= 2 * x2 / (2 * n + 1);
    sum += term;
  }
  return kTwoOverSqrtPi * x * portable_exp(-x2) * sum;
}

/// erfc(x) for x >= 1: exp(-x^2) / (sqrt(pi) (x + (1/2)/(x + 1/(x + (3/2)/(x + ...))))).
double erfc_fraction(double x) {
  constexpr int kDepth = 300;  // cut off here the fraction is off by exp(-2 x sqrt(2 n)) < 2^-70
  double tail = x;
  for (int n = kDepth; n >= 1; --n) tail = x + 0.5 * n / tail;
  // x^2 as a rounded square and its exact rest, since exp magnifies an absolute error of x^2.
  const double high = std::bit_cast<double>(std::bit_cast<uint64_t>(x) & 0xfffffffff8000000ull);
  const double rest = (x - high) * (x + high);
  return portable_exp(-high * high) * portable_exp(-rest) * kOneOverSqrtPi / tail;
}

double integer_power(double x, int64_t n) {
  const bool inverse = n < 0;
  double result = 1;
  for (uint64_t left = static_cast<uint64_t>(inverse ? -n : n); left != 0; left >>= 1) {
    if ((left & 1) != 0) result *= x;
    x *= x;
  }
  return inverse ? 1 / result : result;
}

}  // namespace

double portable_exp(double x) {
  if (std::isnan(x)) return x;
  if (x > 710) return kInfinity;
  if (x < -746) return 0;
  const Reduced p = reduce(x);
  return scale_by_power(1 + expm1_reduced(p.r), p.k);
}

double portable_expm1(double x) {
  if (std::isnan(x)) return x;
  if (x > 710) return kInfinity;
  if (x < -50) return -1;
  if (std::fabs(x) <= 0.34) return expm1_reduced(x);
  return portable_exp(x) - 1;
}

double portable_log(double x) {
  if (std::isnan(x) || x < 0) return kNaN;
  if (x == 0) return -kInfinity;
  if (std::isinf(x)) return x;
  const Split p = split(x);
  // log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.172: s^2 < 0.0295, 13 terms reach 2^-66.
  const double s = (p.mantissa - 1) / (p.mantissa + 1);
  const double s2 = s * s;
  double sum = 0;
  for (int n = 12; n >= 1; --n) sum = s2 * (sum + 1.0 / (2 * n + 1));
  const auto e = static_cast<double>(p.exponent);
  return e * kLn2High + (e * kLn2Low + (2 * s + 2 * s * sum));
}

double portable_log1p(double x) {
  const double y = 1 + x;
  if (y == 1 || std::isinf(y) || !(y > 0)) return y == 1 ? x : portable_log(y);
  return portable_log(y) + (x - (y - 1)) / y;  // the second term repairs the rounding of 1 + x
}

double portable_tanh(double x) {
  if (std::isnan(x)) return x;
  const double size = std::fabs(x);
  if (size > 22) return std::copysign(1.0, x);
  const double t = portable_expm1(2 * size);
  return std::copysign(t / (t + 2), x);
}

double portable_erf(double x) {
  if (std::isnan(x)) return x;
  const double size = std::fabs(x);
  const double value = size < 2.5 ? erf_series(size) : 1 - portable_erfc(size);
  return std::copysign(value, x);
}

double portable_erfc(double x) {
  if (std::isnan(x)) return x;
  if (x < 0) return 1 + portable_erf(-x);
  if (x > 27.5) return 0;  // below the smallest double
  return x < 1 ? 1 - erf_series(x) : erfc_fraction(x);
}

double portable_sigmoid(double x) {
  if (x >= 0) return 1 / (1 + portable_exp(-x));
  const double e = portable_exp(x);
  return e / (1 + e);
}

double portable_softplus(double x) {
  if (std::isnan(x)) return x;
  return std::fmax(x, 0.0) + portable_log1p(portable_exp(-std::fabs(x)));
}

double portable_pow(double x, double y) {
  constexpr double kProductsAreFewer = 64;
  if (y == 0 || x == 1) return 1;
  if (std::isnan(x) || std::isnan(y)) return kNaN;
  if (y == 0.5 && std::isfinite(x)) return std::sqrt(x) + 0.0;  // pow(-0, 0.5) is +0
  const bool integer = std::fabs(y) >= 0x1p53 || y == std::trunc(y);
  if (integer && std::fabs(y) <= kProductsAreFewer) {
    return integer_power(x, static_cast<int64_t>(y));
  }
  const bool odd = integer && std::fabs(y) < 0x1p53 && (static_cast<int64_t>(y) & 1) != 0;
  if (x < 0 && !integer && std::isfinite(x)) return kNaN;
  const double size = std::fabs(x);
  if (size == 1) return odd ? x : 1;
  const double magnitude = portable_exp(y * portable_log(size));
  return odd && std::signbit(x) ? -magnitude : magnitude;
}

}  // namespace narrow
