// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/kernels.h"

#include <bit>
#include <cmath>

#include "narrow/core/clones.h"

namespace narrow::train {
namespace {

// rne for |x| < 2^22; grids have 16 bits at most.
constexpr float kRounder = 12582912.0F;

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

/// a where the mask has ones, b where it has zeros; a condition would keep compilers from vectors.
inline float choose(uint32_t mask, float a, float b) {
  return std::bit_cast<float>((std::bit_cast<uint32_t>(a) & mask) |
                              (std::bit_cast<uint32_t>(b) & ~mask));
}

/// A gradient, and what it adds to lane j.
inline float pass(Mark mark, float up, const GridRun& run, Lanes& sums, int j) {
  const auto m = static_cast<int32_t>(mark);
  const auto below = static_cast<uint32_t>((m - kBelow - 1) >> 31);  // all ones or none
  const auto above = static_cast<uint32_t>((kAbove - 1 - m) >> 31);
  const float passed = choose(below | above, 0.0F, up);
  const float stopped = up - passed;
  sums.inside[j] += passed * static_cast<float>(mark);
  sums.outside[j] += stopped * choose(below, run.low, run.high);
  sums.clamped[j] += stopped;
  return passed;
}

NARROW_CLONES void pass_lanes(const GridRun& run, const Mark* __restrict marks, const float* g,
                              float* dx, Lanes& out) {
  const GridRun r = run;
  Lanes sums;
  const int64_t whole = r.count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    NARROW_INDEPENDENT  // though dx may be g
        for (int j = 0; j < kLanes; ++j) dx[i + j] = pass(marks[i + j], g[i + j], r, sums, j);
  }
  for (int64_t i = whole; i < r.count; ++i) dx[i] = pass(marks[i], g[i], r, sums, 0);
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
