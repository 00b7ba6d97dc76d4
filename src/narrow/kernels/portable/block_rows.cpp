// SPDX-License-Identifier: Apache-2.0
// The product with weights in blocks as the file has them.
#include <cmath>
#include <cstring>
#include <utility>

#define NARROW_BLOCKS_ISA kernels_portable
#include "narrow/core/half.h"
#include "narrow/kernels/portable/kernels.h"
#include "narrow/quant/blocks/take_apart.h"

namespace narrow::kernels::portable {
namespace {

#include "narrow/kernels/portable/block_vec.h"
// The body follows.
#include "narrow/kernels/block_rows_body.h"

}  // namespace

void block_rows(const BlockRowsArgs& args) noexcept {
  block_rows_body(args);
}

}  // namespace narrow::kernels::portable
