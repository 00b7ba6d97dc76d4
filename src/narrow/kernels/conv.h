// SPDX-License-Identifier: Apache-2.0
// Integer convolution on channels-last images. The image is copied once into a padded one (filled
// with the zero_point, which needs no correction at borders) unless it can be read in place; then
// every kernel row of one pixel is a run of consecutive bytes, and the convolution is a matrix
// product whose rows are pixels (igemm.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "narrow/kernels/igemm.h"
#include "narrow/kernels/image.h"

namespace narrow::kernels {

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
/// The taps are stored kernel column by kernel column, each padded to a multiple of 4 rows, where
/// kernels for rows of outputs exist (depthwise_by_columns), else behind each other.
bool depthwise_by_columns(const ConvProblem& p);
/// A row of outputs as one pixel with all its channels, where few channels would leave most of a
/// block empty: their weights are stored over and over until they end with a block.
bool depthwise_by_rows(const ConvProblem& p);
/// Pixels that fill a block together, for kernels for rows of outputs: stored likewise.
bool depthwise_side_by_side(const ConvProblem& p);
PackedMatrix pack_depthwise_conv(const ConvProblem& p, std::span<const int8_t> codes);

/// Codes as they come, channels last.
using ConvInput = ImageSource;
struct ConvOutput {
  void* data = nullptr;  // channels last
  Out out = Out::codes;
  float lo = 0;
  float hi = 0;
  int32_t zero_point = 0;
  uint8_t flip = 0;  // 0x80 for int8 codes
  // Of run_conv, with codes: what is added to them as `sum` says (operand a are the convolution's),
  // channels last, of the output's shape. nullptr: nothing.
  const uint8_t* addend = nullptr;
  BinaryArgs sum = {};
  const uint8_t* table = nullptr;  // of run_conv: 256 codes that replace those of the convolution
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
