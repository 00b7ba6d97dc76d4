// SPDX-License-Identifier: Apache-2.0
// One unit's grid in the form that inner loops want, and these loops. Internal to quant/.
#pragma once

#include <array>
#include <cstdint>

#include "narrow/quant/quantize.h"
#include "narrow/quant/round.h"
#include "narrow/quant/scheme.h"

namespace narrow {

struct UnitGrid {
  float scale = 1;
  float offset = 0;
  float lo = 0;  // limits of round(x / scale), before the zero_point is added
  float hi = 0;
  float nan = 0;  // what NaN counts as, before the zero_point is added
  int32_t zero_point = 0;
};

inline UnitGrid unit_grid(float scale, int32_t zero_point, float offset, const Scheme& scheme) {
  UnitGrid g;
  const bool shifted = scheme.symmetry == Symmetry::offset;
  g.scale = scale;
  g.offset = shifted ? offset : -0.0f;  // adding -0 changes no value, not even -0
  g.zero_point = shifted ? 0 : zero_point;
  g.lo = static_cast<float>(scheme.qmin() - g.zero_point);  // exact: 17 bits
  g.hi = static_cast<float>(scheme.qmax() - g.zero_point);
  g.nan = shifted ? g.lo : 0.0f;
  return g;
}

/// Clamping before rounding gives the same codes, as the limits are integers, and keeps the
/// conversion defined for every float.
inline int32_t quantize_one(float x, const UnitGrid& g) {
  float t = (x - g.offset) / g.scale;
  t = t == t ? t : g.nan;
  t = t < g.hi ? t : g.hi;
  t = t > g.lo ? t : g.lo;
  return round_half_even_int(t) + g.zero_point;
}

inline float dequantize_one(int32_t code, const UnitGrid& g) {
  return g.scale * static_cast<float>(code - g.zero_point) + g.offset;
}

/// Elements that share one unit.
void quantize_run(const float* x, int64_t count, const UnitGrid& g, int32_t* codes);
void dequantize_run(const int32_t* codes, int64_t count, const UnitGrid& g, float* y);

/// QuantParams with their shapes checked, and the grid of each unit.
class GridView {
 public:
  GridView(const QuantParams& params, int64_t units);
  /// Elements of consecutive units.
  void quantize_units(const float* x, int64_t count, int64_t first_unit, int32_t* codes) const;
  void dequantize_units(const int32_t* codes, int64_t count, int64_t first_unit, float* y) const;

  UnitGrid at(int64_t unit) const {
    return unit_grid(scale_[unit], zero_point_ != nullptr ? zero_point_[unit] : 0,
                     offset_ != nullptr ? offset_[unit] : 0.0f, scheme_);
  }

 private:
  const Scheme scheme_;
  const float* scale_ = nullptr;
  const int32_t* zero_point_ = nullptr;
  const float* offset_ = nullptr;
};

}  // namespace narrow
