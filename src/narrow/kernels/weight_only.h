// SPDX-License-Identifier: Apache-2.0
// Products and convolutions of float activations with integer weights: the weights stay in 8 or 4
// bits and become floats panel by panel.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "narrow/core/tensor.h"
#include "narrow/kernels/image.h"

namespace narrow::kernels {

/// Codes and grids before packing. The weight of column c at position k (in the order of the
/// kernel: taps, then run) is (codes[c * k_count + k] - zero) * scale of its group.
struct WeightOnlyCodes {
  int64_t n = 0;
  int64_t k = 0;
  int bits = 8;  // 4: codes in [-8, 15]
  std::span<const int8_t> codes;
  std::span<const int32_t> group;  // [k] group of each position; empty: one group
  int64_t groups = 1;
  std::span<const float> scale;  // [n][groups]
  std::span<const float> zero;   // [n][groups]; empty: all 0
};

struct PackedWeightOnly {
  int64_t n = 0;
  int64_t k = 0;
  int bits = 8;
  int64_t groups = 1;
  Tensor weights;              // layout of kernel_types.h
  std::vector<int32_t> group;  // empty: one group
  std::vector<float> scale;    // [panels][groups][16]
  std::vector<float> zero;     // likewise
  std::vector<float> bias;     // padded to whole panels
  size_t bytes() const;
};

PackedWeightOnly pack_weight_only(const WeightOnlyCodes& w, std::span<const float> bias);

/// y [m, n] from x [m, k], both row-major.
void run_weight_only_gemm(const KernelSet& kernels, const PackedWeightOnly& w, const float* x,
                          int64_t m, float* y);

size_t weight_only_conv_scratch_bytes(const ConvProblem& p);
/// One packed matrix per group of the convolution, K in the order of ConvRuns (conv.h).
void run_weight_only_conv(const KernelSet& kernels, const ConvProblem& p,
                          std::span<const PackedWeightOnly> w, const float* x, float* y,
                          std::span<std::byte> scratch);

}  // namespace narrow::kernels
