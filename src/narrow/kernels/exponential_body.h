// SPDX-License-Identifier: Apache-2.0
// The exponential that float kernels share. Included inside an anonymous namespace, behind a
// float_vec.h.
#pragma once

/// e^x for x <= 88: 0 below -87.3. As runtime/ops/vec_math.h.
inline Vec exponential(Vec x) {
  const Vec least = set1(-87.3365F);
  const Vec round = set1(12582912.0F);  // adding 1.5 * 2^23 rounds to an integer
  const Vec bounded = smaller(set1(88.0F), larger(least, x));
  const Vec n = multiply_add(bounded, set1(1.44269504F), round) - round;
  const Vec r =
      multiply_add(n, set1(2.12194440e-4F), multiply_add(n, set1(-0.693359375F), bounded));
  constexpr float kTerms[] = {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F};
  Vec p = set1(1.0F / 5040);
  for (const float term : kTerms) p = multiply_add(p, r, set1(term));
  return zero_below(scaled(p, n), x, least);
}
