// SPDX-License-Identifier: Apache-2.0
// The loops that training adds to libtorch's: rounding with what its gradient needs, and the steps
// of the optimizers. Each gives the same numbers on every instruction set and for any number of
// threads.
#pragma once

#include <cstdint>

namespace narrow::train {

/// Values in a row that share one unit of a grid: y = scale * rne(clamp(x / scale, low, high)).
struct GridRun {
  int64_t count;
  float scale;
  float low;   // qmin - zero_point
  float high;  // qmax - zero_point
};

/// Where a value lay, one byte: kBelow and kAbove where it was clamped, else q - x / scale in
/// steps of 1 / kParts. It is all that the gradient needs, at a quarter of the memory of x.
using Mark = int8_t;
inline constexpr Mark kBelow = -128;
inline constexpr Mark kAbove = 127;
inline constexpr float kParts = 252;

/// y may be x. Without marks: `marks` is nullptr.
void round_to_grid(const GridRun& run, const float* x, float* y, Mark* marks);

/// What a run adds to the gradients of its unit.
struct GridSums {
  float inside = 0;   // sum of g * (q - x / scale)
  float outside = 0;  // sum of g * q where it was clamped
  float clamped = 0;  // sum of g there
};
/// dx may be g.
GridSums gradient_to_grid(const GridRun& run, const Mark* marks, const float* g, float* dx);

/// A step of Adam (Kingma and Ba, 2015), or with `decoupled` of AdamW (Loshchilov and Hutter,
/// 2019), on `count` values.
struct AdamStep {
  float lr;
  float decay;
  bool decoupled;
  float beta1 = 0.9F;
  float beta2 = 0.999F;
  float epsilon = 1e-8F;
  float correction1;  // 1 - beta1 ^ step
  float correction2;  // sqrt(1 - beta2 ^ step)
};
void adam(const AdamStep& step, int64_t count, const float* g, float* x, float* mean,
          float* square);

/// v = momentum * v + g (g alone in the first step), x = x - lr * v.
struct SgdStep {
  float lr;
  float decay;
  float momentum;
};
void sgd(const SgdStep& step, int64_t count, const float* g, float* x, float* velocity);

}  // namespace narrow::train
