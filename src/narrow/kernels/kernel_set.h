// SPDX-License-Identifier: Apache-2.0
// The kernels of each instruction set, best first. Whoever needs one asks once (when weights are
// packed) and keeps the pointer: a set never changes.
#pragma once

#include <span>
#include <string>

#include "narrow/core/cpu.h"
#include "narrow/kernels/kernel_types.h"

namespace narrow::kernels {

struct KernelSet {
  const char* name;
  Isa isa;
  IgemmFn igemm;
  IgemmFn igemm4;  // weights of 4 bits, one tap
  RowSumsFn row_sums;
  PackFn pack;
  DepthwiseFn depthwise;
  DepthwiseRowFn depthwise_row;  // nullptr: none
  XorCopyFn xor_copy;
  QuantizeFn quantize;
  InterleaveFn interleave;
  DequantizeFn dequantize;
  BinaryFn binary;
  LookupFn lookup;
  MaxPoolFn max_pool;
  AveragePoolFn average_pool;
  RangeFn range;
  ScaleRowFn scale_row;
  WgemmFn wgemm;
  HalfGemmFn half_gemm;
  AttendFn attend;
  ActivateFn activate;
  QuantizeBlocksFn quantize_blocks;
  BlockGemmFn block_gemm;
  BlockRowsFn block_rows;
  BlockFloatFn block_float;
  int64_t block_tile;  // rows of BlockRows that lie side by side
};

/// All sets this program was built with, best first; the portable one (Isa::scalar) is the last.
std::span<const KernelSet> kernel_sets();

/// The set for exactly this instruction set; nullptr if the program was built without.
const KernelSet* find_kernels(Isa isa);

/// Why kernels for `isa` may not run now; empty if they may.
std::string refuse_isa(Isa isa);

/// The best set that may run now.
const KernelSet& best_kernels();

}  // namespace narrow::kernels
