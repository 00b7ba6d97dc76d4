// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/blocks/encode_offset_body.h"
#include "narrow/quant/blocks/encoders.h"

namespace narrow::blocks {
inline namespace NARROW_BLOCKS_ISA {

NARROW_BLOCK_ENCODER(q2_k) {
  do_q2_k(x, importance, blocks, method, emphasis, out);
}
NARROW_BLOCK_ENCODER(q4_k) {
  do_q4_k(x, importance, blocks, method, emphasis, out);
}
NARROW_BLOCK_ENCODER(q5_k) {
  do_q5_k(x, importance, blocks, method, emphasis, out);
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks
