// SPDX-License-Identifier: Apache-2.0
// The integer operators of graph/lowered_ops.h written out plainly: the specification that every
// kernel is compared with. Logical (NCHW) order, operands as int32 with their zero_points already
// subtracted, sums in int64.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "narrow/kernels/conv.h"

namespace narrow::kernels::ref {

/// From a sum to what is stored (see lowered_ops.h).
struct Requantize {
  float multiplier = 1;
  int32_t zero_point = 0;
  int32_t qmin = 0;
  int32_t qmax = 255;
};
int32_t to_code(int64_t acc, const Requantize& r);

/// float(acc) * multiplier (+ bias where there is one), then the bounds.
float to_real(int64_t acc, float multiplier, const float* bias, float lo, float hi);

/// acc[n, m, out] = sum of x[n, c, in] * w[m, c, k] + bias[m]; positions outside are 0.
void conv(const ConvProblem& p, std::span<const int32_t> x, std::span<const int32_t> w,
          std::span<const int32_t> bias, std::span<int64_t> acc);

struct GemmProblem {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  bool trans_b = false;
};
/// acc[m, n] = sum of a[m, k] * b[k, n] (or b[n, k]) + bias[n].
void gemm(const GemmProblem& p, std::span<const int32_t> a, std::span<const int32_t> b,
          std::span<const int32_t> bias, std::span<int64_t> acc);

}  // namespace narrow::kernels::ref
