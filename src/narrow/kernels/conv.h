// SPDX-License-Identifier: Apache-2.0
// Integer convolution on channels-last images. The image is copied once into a padded one (filled
// with the zero_point, which needs no correction at borders) unless it can be read in place; then
// every kernel row of one pixel is a run of consecutive bytes, and the convolution is a matrix
// product whose rows are pixels (igemm.h).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "narrow/kernels/igemm.h"

namespace narrow::kernels {

using Extents = std::array<int64_t, 3>;  // depth, height, width; 1 where an axis is absent

struct ConvProblem {
  int64_t batch = 1;
  int64_t channels = 1;  // of the input
  int64_t filters = 1;   // channels of the output
  int64_t groups = 1;
  Extents in = {1, 1, 1};
  Extents kernel = {1, 1, 1};
  Extents stride = {1, 1, 1};
  Extents dilation = {1, 1, 1};
  Extents pad_begin = {0, 0, 0};
  Extents pad_end = {0, 0, 0};
  Extents out = {1, 1, 1};

  int64_t window() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t out_pixels() const { return batch * out[0] * out[1] * out[2]; }
  int64_t in_values() const { return batch * channels * in[0] * in[1] * in[2]; }
  int64_t out_values() const { return out_pixels() * filters; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_filters() const { return filters / groups; }
  int64_t macs() const { return out_values() * group_channels() * window(); }
};

/// Where in a column's taps and runs the weight of (kernel position, channel of the group) stands.
struct ConvRuns {
  explicit ConvRuns(const ConvProblem& p);
  bool rows;          // a run is a whole kernel row (all its pixels and channels)
  MatrixShape shape;  // of one group's weights
};

/// Weights of a convolution, one packed matrix per group.
struct PackedConv {
  ConvRuns runs;
  std::vector<PackedMatrix> groups;
  std::vector<Columns> columns;  // per group
  size_t bytes() const;
};

/// codes in ONNX order [filters, channels / groups, kernel]; zero: none, one, or one per filter.
PackedConv pack_conv(const ConvProblem& p, std::span<const int8_t> codes,
                     std::span<const int32_t> zero);

/// Every channel its own group with one filter, symmetric weights: the depthwise kernels.
std::string refuse_depthwise(const ConvProblem& p, std::span<const int32_t> zero);
PackedMatrix pack_depthwise_conv(const ConvProblem& p, std::span<const int8_t> codes);

/// The image as it comes.
struct ConvInput {
  const uint8_t* data = nullptr;  // channels last
  uint8_t flip = 0;               // 0x80 for int8 codes
  uint8_t fill = 0;               // the zero_point after the flip
};
struct ConvOutput {
  void* data = nullptr;  // channels last
  Out out = Out::codes;
  float lo = 0;
  float hi = 0;
  int32_t zero_point = 0;
};

/// Bytes of 64-byte aligned scratch that run_conv (run_depthwise) wants.
size_t conv_scratch_bytes(const ConvProblem& p);

void run_conv(const KernelSet& kernels, const ConvProblem& p, const PackedConv& w,
              const ConvInput& input, const ConvOutput& output, std::span<std::byte> scratch);
/// With columns that are not the packed ones (run-time zero_points); one per group.
void run_conv(const KernelSet& kernels, const ConvProblem& p, const PackedConv& w,
              std::span<const Columns> columns, const ConvInput& input, const ConvOutput& output,
              std::span<std::byte> scratch);
void run_depthwise(const KernelSet& kernels, const ConvProblem& p, const PackedMatrix& w,
                   const Columns& columns, const ConvInput& input, const ConvOutput& output,
                   std::span<std::byte> scratch);

}  // namespace narrow::kernels
