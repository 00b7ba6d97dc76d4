// SPDX-License-Identifier: Apache-2.0
// Weights in blocks: quantization of the activations, and the product.
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "narrow/core/half.h"
#include "narrow/kernels/portable/kernels.h"
#include "narrow/quant/blocks/block_parts.h"
#include "narrow/quant/round.h"

namespace narrow::kernels::portable {
namespace {

#include "narrow/kernels/portable/block_vec.h"
// The body follows.
#include "narrow/kernels/block_gemm_body.h"
// Behind it.
#include "narrow/kernels/block_float_body.h"
#include "narrow/kernels/quantize_blocks_body.h"

void quantize_run(const float* x, float* scale, int8_t* codes) {
  uint32_t largest = 0;
  for (int i = 0; i < kRun; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffU;
    largest = magnitude > largest ? magnitude : largest;
  }
  const float s = std::bit_cast<float>(largest) / 127.0F;
  *scale = s;
  const bool usable = s > 0 && s < std::numeric_limits<float>::infinity();
  for (int i = 0; i < kRun; ++i) {
    float t = usable ? x[i] / s : 0.0F;
    t = t < 127.0F ? t : 127.0F;
    t = t > -127.0F ? t : -127.0F;
    codes[i] = static_cast<int8_t>(round_half_even_int(t));
  }
}

/// Sums of the halves of 32 codes.
void sum_halves(const int8_t* codes, int32_t* sums) {
  sums[0] = 0;
  sums[1] = 0;
  for (int i = 0; i < kRun; ++i) sums[i / 16] += codes[i];
}

}  // namespace

void quantize_blocks(const QuantizeBlocksArgs& args) noexcept {
  quantize_blocks_body(args, quantize_run, sum_halves);
}

void block_gemm(const BlockGemmArgs& args) noexcept {
  block_gemm_body(args);
}

void block_float(const BlockFloatArgs& args) noexcept {
  block_float_body(args);
}

}  // namespace narrow::kernels::portable
