// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/kernels.h"

#include <cmath>

namespace narrow::train {
namespace {

// rne for |x| < 2^22; grids have 16 bits at most.
constexpr float kRounder = 12582912.0F;

// The loops below are plain so that compilers turn them into vectors of whatever the CPU has
// (CMakeLists.txt asks for it). Contraction is off: all give the same numbers.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define NARROW_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NARROW_CLONES
#endif

constexpr int kLanes = 16;  // sums side by side: one order for all instruction sets

NARROW_CLONES void round_alone(const GridRun& run, const float* x, float* y) {
  const GridRun r = run;
  for (int64_t i = 0; i < r.count; ++i) {
    float t = x[i] / r.scale;
    t = t > r.low ? t : r.low;  // NaN becomes low
    t = t < r.high ? t : r.high;
    y[i] = r.scale * ((t + kRounder) - kRounder);
  }
}

NARROW_CLONES void round_and_mark(const GridRun& run, const float* x, float* y,
                                  Mark* __restrict marks) {
  const GridRun r = run;
  for (int64_t i = 0; i < r.count; ++i) {
    const float t = x[i] / r.scale;
    float c = t > r.low ? t : r.low;
    c = c < r.high ? c : r.high;
    const float q = (c + kRounder) - kRounder;
    y[i] = r.scale * q;
    const float part = ((q - c) * kParts + kRounder) - kRounder;
    const float mark = c == t ? part : (t > r.high ? float{kAbove} : float{kBelow});
    marks[i] = static_cast<Mark>(static_cast<int32_t>(mark));
  }
}

struct Lanes {
  float inside[kLanes] = {};
  float outside[kLanes] = {};
  float clamped[kLanes] = {};
};

NARROW_CLONES void pass_lanes(const GridRun& run, const Mark* __restrict marks, const float* g,
                              float* dx, Lanes& out) {
  Lanes sums;
  const float low = run.low;
  const float high = run.high;
  const int64_t whole = run.count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const auto mark = static_cast<float>(marks[i + j]);
      const float up = g[i + j];
      const bool below = mark == float{kBelow};
      const bool above = mark == float{kAbove};
      const float passed = below || above ? 0.0F : up;
      const float stopped = up - passed;
      dx[i + j] = passed;
      sums.inside[j] += passed * mark;
      sums.outside[j] += stopped * (below ? low : high);
      sums.clamped[j] += stopped;
    }
  }
  for (int64_t i = whole; i < run.count; ++i) {
    const auto mark = static_cast<float>(marks[i]);
    const float up = g[i];
    const bool below = marks[i] == kBelow;
    const float passed = below || marks[i] == kAbove ? 0.0F : up;
    dx[i] = passed;
    sums.inside[0] += passed * mark;
    sums.outside[0] += (up - passed) * (below ? low : high);
    sums.clamped[0] += up - passed;
  }
  out = sums;
}

NARROW_CLONES void adam_loop(const AdamStep& step, int64_t count, const float* __restrict g,
                             float* __restrict x, float* __restrict mean,
                             float* __restrict square) {
  const AdamStep s = step;
  const float keep = s.decoupled ? 1 - s.lr * s.decay : 1;
  const float pulled = s.decoupled ? 0 : s.decay;
  const float rate = s.lr / s.correction1;
  for (int64_t i = 0; i < count; ++i) {
    const float d = g[i] + pulled * x[i];
    mean[i] = s.beta1 * mean[i] + (1 - s.beta1) * d;
    square[i] = s.beta2 * square[i] + (1 - s.beta2) * d * d;
    x[i] = keep * x[i] - rate * mean[i] / (std::sqrt(square[i]) / s.correction2 + s.epsilon);
  }
}

NARROW_CLONES void sgd_loop(const SgdStep& step, int64_t count, const float* __restrict g,
                            float* __restrict x, float* __restrict velocity) {
  const SgdStep s = step;
  for (int64_t i = 0; i < count; ++i) {
    velocity[i] = s.momentum * velocity[i] + (g[i] + s.decay * x[i]);
    x[i] -= s.lr * velocity[i];
  }
}

}  // namespace

void round_to_grid(const GridRun& run, const float* x, float* y, Mark* marks) {
  if (marks == nullptr) {
    round_alone(run, x, y);
  } else {
    round_and_mark(run, x, y, marks);
  }
}

GridSums gradient_to_grid(const GridRun& run, const Mark* marks, const float* g, float* dx) {
  Lanes lanes;
  pass_lanes(run, marks, g, dx, lanes);
  GridSums sums;
  for (int j = 0; j < kLanes; ++j) {
    sums.inside += lanes.inside[j] / kParts;
    sums.outside += lanes.outside[j];
    sums.clamped += lanes.clamped[j];
  }
  return sums;
}

void adam(const AdamStep& step, int64_t count, const float* g, float* x, float* mean,
          float* square) {
  adam_loop(step, count, g, x, mean, square);
}

void sgd(const SgdStep& step, int64_t count, const float* g, float* x, float* velocity) {
  sgd_loop(step, count, g, x, velocity);
}

}  // namespace narrow::train
