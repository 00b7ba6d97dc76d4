// SPDX-License-Identifier: Apache-2.0
// Work along one axis of a row-major tensor, line by line.
#pragma once

#include <algorithm>

#include "narrow/core/shape.h"
#include "narrow/runtime/ops/strided.h"

namespace narrow::ops {

/// A shape seen from one axis: [outer, extent, inner].
struct AxisView {
  int64_t outer;
  int64_t extent;
  int64_t inner;
  int64_t lines() const { return outer * inner; }
  /// Offset of the first element of a line; its elements are `inner` apart.
  int64_t begin(int64_t line) const { return line / inner * extent * inner + line % inner; }
};

inline AxisView axis_view(const Dims& dims, int64_t axis) {
  const auto a = static_cast<size_t>(axis);
  return {num_elements(dims, 0, a), dims[a], num_elements(dims, a + 1, dims.size())};
}

/// Calls line(offset, stride, length, index of the line) for every line, on all threads.
template <class Line>
void for_lines(const AxisView& view, const Line& line) {
  if (view.lines() == 0) return;
  parallel_for(view.lines(), std::max<int64_t>(1, kBlockElements / (view.extent + 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   line(view.begin(i), view.inner, view.extent, i);
                 }
               });
}

}  // namespace narrow::ops
