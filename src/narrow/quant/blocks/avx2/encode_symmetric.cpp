// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#define NARROW_BLOCKS_ISA avx2
#include "narrow/quant/blocks/encode_symmetric_body.h"
#include "narrow/quant/blocks/encoders.h"

namespace narrow::blocks {
inline namespace NARROW_BLOCKS_ISA {

NARROW_BLOCK_ENCODER(q3_k) {
  do_q3_k(x, importance, blocks, method, emphasis, out);
}
NARROW_BLOCK_ENCODER(q6_k) {
  do_q6_k(x, importance, blocks, method, emphasis, out);
}
NARROW_BLOCK_ENCODER(iq4_xs) {
  do_iq4_xs(x, importance, blocks, method, emphasis, out);
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks

#endif
