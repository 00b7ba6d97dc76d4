// SPDX-License-Identifier: Apache-2.0
// Proof that a layer's accumulators fit int32, from its actual integer weights:
//   acc = sum over k of (q_x - z_x) * (q_w - z_w) + bias
// is largest when every q_x stands at the end of its range that its weight's sign asks for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "narrow/core/tensor.h"

namespace narrow {

/// The codes that an activation can have. Padding contributes zero_point, inside or outside.
struct CodeRange {
  int32_t qmin = 0;
  int32_t qmax = 255;
  int32_t zero_point = 0;
};

struct AccumulatorBound {
  int64_t min = 0;
  int64_t max = 0;
};

struct OverflowProof {
  std::vector<AccumulatorBound> rows;  // exact extremes of each output channel
  int64_t min = 0;                     // over all rows
  int64_t max = 0;
  int64_t worst_row = 0;  // the first with the largest magnitude

  bool fits_int32() const;
  /// Bits of the magnitude left: log2(2^31 / largest magnitude); negative where int32 overflows, 31
  /// when every accumulator is 0.
  double headroom_bits() const;
};

/// weights: integer codes of at most 16 bits; `axis` is the output channel's dimension (0 for
/// [rows, K] and convolutions, 1 for [K, columns]). zero_points: none, one, or one per row; bias:
/// none or one per row.
OverflowProof prove_accumulators(const Tensor& weights, std::span<const int32_t> zero_points,
                                 const CodeRange& activations, std::span<const int32_t> bias,
                                 int64_t axis = 0);

}  // namespace narrow
