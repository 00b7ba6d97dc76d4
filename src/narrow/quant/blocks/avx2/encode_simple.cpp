// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#define NARROW_BLOCKS_ISA avx2
#include "narrow/quant/blocks/encode_simple_body.h"
#include "narrow/quant/blocks/encoders.h"

namespace narrow::blocks {
inline namespace NARROW_BLOCKS_ISA {

NARROW_BLOCK_ENCODER(q4_0) {
  do_q4_0(x, importance, blocks, method, emphasis, out);
}
NARROW_BLOCK_ENCODER(q4_1) {
  do_q4_1(x, importance, blocks, method, emphasis, out);
}
NARROW_BLOCK_ENCODER(q5_0) {
  do_q5_0(x, importance, blocks, method, emphasis, out);
}
NARROW_BLOCK_ENCODER(q5_1) {
  do_q5_1(x, importance, blocks, method, emphasis, out);
}
NARROW_BLOCK_ENCODER(q8_0) {
  do_q8_0(x, importance, blocks, method, emphasis, out);
}
NARROW_BLOCK_ENCODER(iq4_nl) {
  do_iq4_nl(x, importance, blocks, method, emphasis, out);
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks

#endif
