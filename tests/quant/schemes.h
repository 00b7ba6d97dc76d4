// SPDX-License-Identifier: Apache-2.0
// Every combination of bits, sign, range, symmetry and scale type, for property tests.
#pragma once

#include <vector>

#include "narrow/quant/scheme.h"

namespace narrow {

inline std::vector<Scheme> all_grids() {
  std::vector<Scheme> out;
  for (const int bits : {2, 3, 4, 5, 6, 7, 8, 16}) {
    for (const Symmetry symmetry : {Symmetry::symmetric, Symmetry::asymmetric, Symmetry::offset}) {
      for (const ScaleType type :
           {ScaleType::float32, ScaleType::float16, ScaleType::bfloat16, ScaleType::power_of_two}) {
        const Scheme base{.bits = bits, .symmetry = symmetry, .scale_type = type};
        Scheme narrow_range = base;
        narrow_range.narrow_range = true;
        Scheme no_sign = base;
        no_sign.is_signed = false;
        out.insert(out.end(), {base, narrow_range, no_sign});
      }
    }
  }
  return out;
}

/// Each granularity that fits a tensor of three dimensions, with groups that do not divide them.
inline std::vector<Scheme> all_granularities(Scheme scheme) {
  std::vector<Scheme> out;
  scheme.granularity = Granularity::per_tensor;
  out.push_back(scheme);
  scheme.granularity = Granularity::per_token;
  out.push_back(scheme);
  for (const int64_t axis : {0, 1, 2, -1}) {
    scheme.axis = axis;
    scheme.granularity = Granularity::per_axis;
    out.push_back(scheme);
    scheme.granularity = Granularity::per_group;
    for (const int64_t group : {1, 2, 3, 4, 32, 1000}) {
      scheme.group_size = group;
      out.push_back(scheme);
    }
    scheme.group_size = 0;
  }
  return out;
}

}  // namespace narrow
