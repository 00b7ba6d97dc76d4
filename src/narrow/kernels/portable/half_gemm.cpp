// SPDX-License-Identifier: Apache-2.0
// Float activations times 16-bit weights.
#include <bit>

#include "narrow/kernels/float_types.h"
#include "narrow/kernels/portable/kernels.h"

namespace narrow::kernels::portable {
namespace {

#include "narrow/kernels/portable/float_vec.h"
// The body follows.
#include "narrow/kernels/half_gemm_body.h"

}  // namespace

void half_gemm(const HalfGemmArgs& args) noexcept {
  half_gemm_body(args);
}

}  // namespace narrow::kernels::portable
