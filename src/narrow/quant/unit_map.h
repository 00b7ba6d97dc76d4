// SPDX-License-Identifier: Apache-2.0
// Which scale applies to which element, as arithmetic on row-major indices. A tensor is seen as
// [outer, length, inner]; consecutive elements form runs that share one unit or have consecutive
// units.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "narrow/core/shape.h"
#include "narrow/quant/scheme.h"

namespace narrow {

struct UnitMap {
  int64_t outer = 1;
  int64_t length = 1;
  int64_t inner = 1;
  int64_t group = 1;  // consecutive indices along `length` that share a unit
  int64_t outer_step = 0;
  int64_t group_step = 0;
  int64_t inner_step = 0;
  int64_t units = 1;

  UnitMap(std::span<const int64_t> dims, const Scheme& scheme);

  int64_t elements() const { return outer * length * inner; }

  int64_t unit(int64_t element) const {
    const int64_t i = element % inner;
    const int64_t a = element / inner % length;
    const int64_t o = element / inner / length;
    return o * outer_step + a / group * group_step + i * inner_step;
  }

  /// Calls run(first element, count, first unit, unit step 0 or 1) over [begin, end) in order.
  template <class Run>
  void for_runs(int64_t begin, int64_t end, Run&& run) const {
    while (begin < end) {
      const int64_t left = std::min(end - begin, run_left(begin));
      run(begin, left, unit(begin), step());
      begin += left;
    }
  }

 private:
  bool one_unit_per_index() const { return inner == 1 && group_step != 0 && group == 1; }
  int64_t step() const { return inner > 1 ? inner_step : (one_unit_per_index() ? 1 : 0); }
  /// Elements from `element` to the end of its run.
  int64_t run_left(int64_t element) const {
    if (inner > 1) return inner - element % inner;
    const int64_t a = element % length;
    if (group_step == 0 || one_unit_per_index()) return length - a;
    return std::min(group - a % group, length - a);
  }
};

}  // namespace narrow
