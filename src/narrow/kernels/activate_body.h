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

template <class Function>
inline void activate_all(const Function& function, const float* x, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(y + i, function(load(x + i)));
  if (i < count) store_part(y + i, function(load_part(x + i, count - i)), count - i);
}

inline void activate_body(SmoothUnit unit, const float* x, float* y, int64_t count) {
  if (unit == SmoothUnit::silu) {
    activate_all([](Vec v) { return silu(v); }, x, y, count);
  } else {
    activate_all([](Vec v) { return gelu_tanh(v); }, x, y, count);
  }
}
