// SPDX-License-Identifier: Apache-2.0
// Integer matrix products of row-major activations with packed weights.
#pragma once

#include <cstdint>
#include <span>

#include "narrow/kernels/igemm.h"

namespace narrow::kernels {

/// dst [m, n] from a [m, k] (row-major bytes).
struct GemmProblem {
  int64_t m = 0;
  const uint8_t* a = nullptr;
  uint8_t flip = 0;  // 0x80 for int8 codes
  PackedView w;
  Epilogue epilogue = {};
  void* dst = nullptr;
};

/// Bytes of 64-byte aligned scratch for a product of m rows.
size_t gemm_scratch_bytes(int64_t m, int64_t k);

void run_gemm(const KernelSet& kernels, const GemmProblem& problem, std::span<std::byte> scratch);

}  // namespace narrow::kernels
