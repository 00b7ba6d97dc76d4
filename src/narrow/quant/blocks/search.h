// SPDX-License-Identifier: Apache-2.0
// Least weighted squares for one group of values that share a scale: the loops that the encoders
// spend their time in. Internal to quant/blocks.
//
// For fixed levels l the best scale of sum w (x - d l)^2 is d = sum w x l / sum w l^2, and the
// error falls by F8 = (sum w x l)^2 / sum w l^2. With an offset, x ~ d l + o, the same holds after
// both sides are centred by their weighted means. So a trial scale gives levels, levels give sums,
// and trials are compared by F8 without a second pass.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>

#include "narrow/quant/blocks/lanes.h"
#include "narrow/quant/blocks/layout.h"
#include "narrow/quant/blocks/super_block.h"

namespace narrow::blocks {
inline namespace NARROW_BLOCKS_ISA {

/// kVectors * 8 values with their weights.
template <int kVectors>
struct Group {
  F8 x[kVectors];
  F8 w[kVectors];
  F8 wx[kVectors];
  const float* values = nullptr;  // which stay where they are while the group is used
  const float* weights = nullptr;
  float sum_w = 0;
  float sum_wx = 0;
  float sum_wxx = 0;

  void load(const float* all_values, const float* all_weights) {
    values = all_values;
    weights = all_weights;
    F8 sw = F8::all(0);
    F8 swx = F8::all(0);
    F8 swxx = F8::all(0);
    for (int v = 0; v < kVectors; ++v) {
      x[v] = F8::load(values + 8 * v);
      w[v] = F8::load(weights + 8 * v);
      wx[v] = w[v] * x[v];
      sw = sw + w[v];
      swx = swx + wx[v];
      swxx = swxx + wx[v] * x[v];
    }
    sum_w = sw.sum();
    sum_wx = swx.sum();
    sum_wxx = swxx.sum();
  }
};

template <int kVectors>
inline void range_of(const Group<kVectors>& g, float& low, float& high) {
  F8 lo = g.x[0];
  F8 hi = g.x[0];
  for (int v = 1; v < kVectors; ++v) {
    lo = min(lo, g.x[v]);
    hi = max(hi, g.x[v]);
  }
  float l[8];
  float h[8];
  lo.store(l);
  hi.store(h);
  low = l[0];
  high = h[0];
  for (int i = 1; i < 8; ++i) {
    low = l[i] < low ? l[i] : low;
    high = h[i] > high ? h[i] : high;
  }
}

/// Weighted sums over the levels l of a group.
struct LevelSums {
  float l = 0;   // sum w l
  float ll = 0;  // sum w l^2
  float xl = 0;  // sum w x l
};

/// The levels lo, lo + 1, .., hi; the code of a level is its distance from lo.
struct LinearGrid {
  float lo;
  float hi;
  F8 operator()(F8 t) const { return round(min(max(t, F8::all(lo)), F8::all(hi))); }
  void store_codes(F8 level, uint8_t* codes) const { (level - F8::all(lo)).store_bytes(codes); }
};

/// The levels of iq4_nl and iq4_xs.
struct NonlinearGrid {
  F8 operator()(F8 t) const {
    F8 level = F8::all(kNonlinear[0]);
    for (int k = 1; k < 16; ++k) {
      const float middle = 0.5f * static_cast<float>(kNonlinear[k - 1] + kNonlinear[k]);
      const auto step = static_cast<float>(kNonlinear[k] - kNonlinear[k - 1]);
      level = level + where_above(t, F8::all(middle), F8::all(step));
    }
    return level;
  }
  void store_codes(F8 level, uint8_t* codes) const {
    (level + F8::all(128)).store_bytes(codes);
    for (int i = 0; i < 8; ++i) {
      const int value = codes[i] - 128;
      int k = 0;
      while (kNonlinear[k] < value) ++k;
      codes[i] = static_cast<uint8_t>(k);
    }
  }
};

/// With the levels nearest to (x - offset) * inv.
template <int kVectors, class Grid>
inline LevelSums sums_at(const Group<kVectors>& g, const Grid& grid, float inv, float offset) {
  F8 sl = F8::all(0);
  F8 sll = F8::all(0);
  F8 sxl = F8::all(0);
  const F8 inv8 = F8::all(inv);
  const F8 offset8 = F8::all(offset);
  for (int v = 0; v < kVectors; ++v) {
    const F8 l = grid((g.x[v] - offset8) * inv8);
    const F8 wl = g.w[v] * l;
    sl = sl + wl;
    sll = sll + wl * l;
    sxl = sxl + g.wx[v] * l;
  }
  return {sl.sum(), sll.sum(), sxl.sum()};
}

/// As above without an offset; `l` is left 0.
template <int kVectors, class Grid>
inline LevelSums sums_at(const Group<kVectors>& g, const Grid& grid, float inv) {
  F8 sll = F8::all(0);
  F8 sxl = F8::all(0);
  const F8 inv8 = F8::all(inv);
  for (int v = 0; v < kVectors; ++v) {
    const F8 l = grid(g.x[v] * inv8);
    sll = sll + g.w[v] * l * l;
    sxl = sxl + g.wx[v] * l;
  }
  return {0, sll.sum(), sxl.sum()};
}

/// The error of x ~ scale * level + offset with the nearest levels, and the sums over them.
template <int kVectors, class Grid>
inline float error_at(const Group<kVectors>& g, const Grid& grid, float scale, float offset,
                      LevelSums& sums) {
  F8 error = F8::all(0);
  F8 sl = F8::all(0);
  F8 sll = F8::all(0);
  F8 sxl = F8::all(0);
  const F8 inv8 = F8::all(inverse(scale));
  const F8 scale8 = F8::all(scale);
  const F8 offset8 = F8::all(offset);
  for (int v = 0; v < kVectors; ++v) {
    const F8 shifted = g.x[v] - offset8;
    const F8 l = grid(shifted * inv8);
    const F8 rest = shifted - scale8 * l;
    const F8 wl = g.w[v] * l;
    error = error + g.w[v] * rest * rest;
    sl = sl + wl;
    sll = sll + wl * l;
    sxl = sxl + g.wx[v] * l;
  }
  sums = {sl.sum(), sll.sum(), sxl.sum()};
  return error.sum();
}

/// Eight trials side by side, a lane each: no sums over lanes, and their divisions overlap.
struct Trials {
  static constexpr int kCount = 8;
  alignas(32) float scale[kCount];  // or its inverse
  alignas(32) float offset[kCount];
  alignas(32) float error[kCount];
  alignas(32) float l[kCount];
  alignas(32) float ll[kCount];
  alignas(32) float xl[kCount];

  /// The first of the least error.
  int best() const {
    int least = 0;
    for (int i = 1; i < kCount; ++i) {
      if (error[i] < error[least]) least = i;
    }
    return least;
  }
  LevelSums sums(int i) const { return {l[i], ll[i], xl[i]}; }
};

/// Sums with the levels nearest to (x - offset) * scale, for each trial.
template <int kVectors, class Grid>
inline void sums_of_trials(const Group<kVectors>& g, const Grid& grid, Trials& t) {
  const F8 inv = F8::load(t.scale);
  const F8 offset = F8::load(t.offset);
  F8 sl = F8::all(0);
  F8 sll = F8::all(0);
  F8 sxl = F8::all(0);
  for (int i = 0; i < 8 * kVectors; ++i) {
    const F8 x = F8::all(g.values[i]);
    const F8 l = grid((x - offset) * inv);
    const F8 wl = F8::all(g.weights[i]) * l;
    sl = sl + wl;
    sll = sll + wl * l;
    sxl = sxl + wl * x;
  }
  sl.store(t.l);
  sll.store(t.ll);
  sxl.store(t.xl);
}

/// Errors and sums of x ~ scale * level + offset with the nearest levels, for each trial.
template <int kVectors, class Grid>
inline void errors_of_trials(const Group<kVectors>& g, const Grid& grid, Trials& t) {
  alignas(32) float inverses[Trials::kCount];
  for (int i = 0; i < Trials::kCount; ++i) inverses[i] = inverse(t.scale[i]);
  const F8 inv = F8::load(inverses);
  const F8 scale = F8::load(t.scale);
  const F8 offset = F8::load(t.offset);
  F8 error = F8::all(0);
  F8 sl = F8::all(0);
  F8 sll = F8::all(0);
  F8 sxl = F8::all(0);
  for (int i = 0; i < 8 * kVectors; ++i) {
    const F8 x = F8::all(g.values[i]);
    const F8 w = F8::all(g.weights[i]);
    const F8 shifted = x - offset;
    const F8 l = grid(shifted * inv);
    const F8 rest = shifted - scale * l;
    const F8 wl = w * l;
    error = error + w * rest * rest;
    sl = sl + wl;
    sll = sll + wl * l;
    sxl = sxl + wl * x;
  }
  error.store(t.error);
  sl.store(t.l);
  sll.store(t.ll);
  sxl.store(t.xl);
}

template <int kVectors, class Grid>
inline void codes_at(const Group<kVectors>& g, const Grid& grid, float scale, float offset,
                     uint8_t* codes) {
  const F8 inv = F8::all(inverse(scale));
  for (int v = 0; v < kVectors; ++v) {
    grid.store_codes(grid((g.x[v] - F8::all(offset)) * inv), codes + 8 * v);
  }
}

/// x ~ scale * level - minimum, scale >= 0.
struct OffsetFit {
  float scale = 0;
  float minimum = 0;
};

enum class MinimumSign : uint8_t { any, not_negative };

/// The best fit for given levels; returns how far the error falls below sum w x^2.
template <int kVectors>
float solve(const Group<kVectors>& g, const LevelSums& sums, MinimumSign sign, OffsetFit& fit) {
  const float mean_l = sums.l / g.sum_w;
  const float ll = sums.ll - sums.l * mean_l;
  const float xl = sums.xl - g.sum_wx * mean_l;
  if (ll > 1e-5f * sums.ll && xl > 0) {
    fit.scale = xl / ll;
    fit.minimum = (fit.scale * sums.l - g.sum_wx) / g.sum_w;
    if (fit.minimum >= 0 || sign == MinimumSign::any) {
      return g.sum_wx * g.sum_wx / g.sum_w + xl * fit.scale;
    }
  }
  fit.minimum = 0;
  fit.scale = sums.ll > 0 && sums.xl > 0 ? sums.xl / sums.ll : 0;
  return sums.xl * fit.scale;
}

/// The textbook fit: from the smallest value (or 0) to the largest.
template <int kVectors>
OffsetFit offset_extremes(const Group<kVectors>& g, float max_code, MinimumSign sign) {
  float low;
  float high;
  range_of(g, low, high);
  if (sign == MinimumSign::not_negative) low = std::min(low, 0.0f);
  return {(std::max(high, low) - low) / max_code, -low};
}

/// Trials narrow or widen the range in steps, from its lower end and from somewhat above it; the
/// best is then fitted and rounded in turns.
template <int kVectors>
OffsetFit search_offset(const Group<kVectors>& g, float max_code, MinimumSign sign) {
  // A net three times denser lowers the error of 4-bit codes by another 0.1 to 0.6 %.
  constexpr float kTrials[] = {-1.75f, -1.35f, -0.95f, -0.55f, -0.15f, 0.25f, 0.65f, 1.05f};
  static_assert(std::size(kTrials) == Trials::kCount);
  constexpr float kShifts[] = {0.0f, 0.4f};
  constexpr int kRounds = 2;
  OffsetFit best = offset_extremes(g, max_code, sign);
  if (!(best.scale > 0)) return best;
  const LinearGrid grid{0, max_code};
  const float low = -best.minimum;
  const float range = best.scale * max_code;
  float best_gain = -1;
  const auto consider = [&](const LevelSums& sums) {
    OffsetFit fit;
    const float gain = solve(g, sums, sign, fit);
    if (gain > best_gain) {
      best_gain = gain;
      best = fit;
    }
  };
  for (const float shift : kShifts) {
    Trials trials;
    for (int i = 0; i < Trials::kCount; ++i) {
      trials.scale[i] = (max_code + kTrials[i]) / range;
      trials.offset[i] = low + shift / trials.scale[i];
    }
    sums_of_trials(g, grid, trials);
    for (int i = 0; i < Trials::kCount; ++i) consider(trials.sums(i));
  }
  for (int round = 0; round < kRounds; ++round) {
    const OffsetFit now = best;
    consider(sums_at(g, grid, inverse(now.scale), -now.minimum));
    if (best.scale == now.scale && best.minimum == now.minimum) break;
  }
  return best;
}

/// The scale that sends the value of the largest magnitude to `extreme_level`.
template <int kVectors>
float symmetric_extreme(const Group<kVectors>& g, float extreme_level) {
  float low;
  float high;
  range_of(g, low, high);
  return (-low > high ? low : high) / extreme_level;
}

/// x ~ scale * level; trials -4 to 3 make the value of the largest magnitude level
/// `extreme + step * t`, or minus that.
template <int kVectors, class Grid>
float search_symmetric(const Group<kVectors>& g, const Grid& grid, float extreme, float step) {
  constexpr int kRounds = 2;
  float best = symmetric_extreme(g, extreme);
  if (best == 0) return 0;
  const float value = best * extreme;
  float best_gain = -1;
  const auto consider = [&](const LevelSums& sums) {
    if (!(sums.ll > 0)) return;
    const float scale = sums.xl / sums.ll;
    if (sums.xl * scale > best_gain) {
      best_gain = sums.xl * scale;
      best = scale;
    }
  };
  for (const float sign : {1.0f, -1.0f}) {
    Trials trials;
    for (int i = 0; i < Trials::kCount; ++i) {
      trials.scale[i] = sign * (extreme + step * static_cast<float>(i - 4)) / value;
      trials.offset[i] = 0;
    }
    sums_of_trials(g, grid, trials);
    for (int i = 0; i < Trials::kCount; ++i) consider(trials.sums(i));
  }
  for (int round = 0; round < kRounds; ++round) {
    const float now = best;
    consider(sums_at(g, grid, inverse(now)));
    if (best == now) break;
  }
  return best;
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks
