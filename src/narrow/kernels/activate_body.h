// SPDX-License-Identifier: Apache-2.0
// Smooth activations. Included inside an anonymous namespace, behind a float_vec.h.
#pragma once

#include "narrow/kernels/exponential_body.h"

/// x / (1 + e^-x).
inline Vec silu(Vec x) {
  return x / (set1(1) + exponential(zeros() - x));
}

/// x / 2 (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vec gelu_tanh(Vec x) {
  const Vec cubed = multiply_add(set1(0.044715F) * x * x, x, x);
  return x / (set1(1) + exponential(set1(-1.5957691216F) * cubed));
}

/// x / 2 (1 + erf(x / sqrt(2))) = max(x, 0) - |x| e, e = erfc(|x| / sqrt(2)) / 2, by Abramowitz and
/// Stegun 7.1.26: the error of e is below 7.5e-8.
inline Vec gelu(Vec x) {
  // Past the bound e is 0, and infinity times that would be none.
  const Vec magnitude = smaller(set1(30), larger(x, zeros() - x));
  const Vec t = set1(1) / multiply_add(set1(0.3275911F * 0.70710678F), magnitude, set1(1));
  constexpr float kTerms[] = {-0.7265760135F, 0.7107068705F, -0.142248368F, 0.127414796F};
  Vec p = set1(0.5307027145F);
  for (const float term : kTerms) p = multiply_add(p, t, set1(term));
  const Vec e = p * t * exponential(set1(-0.5F) * magnitude * magnitude);
  return larger(x, zeros()) - magnitude * e;
}

template <class Function>
inline void activate_all(const Function& function, const float* x, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(y + i, function(load(x + i)));
  if (i < count) store_part(y + i, function(load_part(x + i, count - i)), count - i);
}

inline void activate_body(SmoothUnit unit, const float* x, float* y, int64_t count) {
  if (unit == SmoothUnit::silu) {
    activate_all([](Vec v) { return silu(v); }, x, y, count);
  } else if (unit == SmoothUnit::gelu) {
    activate_all([](Vec v) { return gelu(v); }, x, y, count);
  } else {
    activate_all([](Vec v) { return gelu_tanh(v); }, x, y, count);
  }
}
