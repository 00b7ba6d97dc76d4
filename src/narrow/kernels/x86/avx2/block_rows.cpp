// SPDX-License-Identifier: Apache-2.0
// The product with weights in blocks as the file has them.
#if defined(__x86_64__)
// GCC 12's own intrinsics headers use undefined values on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <utility>

#define NARROW_BLOCKS_ISA kernels_avx2
#include "narrow/kernels/x86/avx2/kernels.h"
#include "narrow/quant/blocks/take_apart.h"

namespace narrow::kernels::avx2 {
namespace {

#include "narrow/kernels/x86/avx2/block_vec.h"
// The body follows.
#include "narrow/kernels/block_rows_body.h"

}  // namespace

void block_rows(const BlockRowsArgs& args) noexcept {
  block_rows_body(args);
}

}  // namespace narrow::kernels::avx2

#endif
