// SPDX-License-Identifier: Apache-2.0
// MatMul as numpy defines it, resolved: vectors made matrices, batch axes broadcast.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "narrow/core/shape.h"

namespace narrow::ops {

struct MatMulShape {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  Dims batch;  // broadcast batch axes
  /// For each batch item: which matrix of a and of b (counted in whole matrices).
  std::vector<int64_t> a_item;
  std::vector<int64_t> b_item;
  int64_t items() const { return static_cast<int64_t>(a_item.size()); }
};

/// Throws invalid_argument where the shapes do not fit.
MatMulShape matmul_shape(std::span<const int64_t> a, std::span<const int64_t> b);

}  // namespace narrow::ops
