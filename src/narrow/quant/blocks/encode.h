// SPDX-License-Identifier: Apache-2.0
// The encoders of the table in block_codec.cpp. Finite values in, whole blocks out.
#pragma once

#include <cstdint>

#include "narrow/quant/blocks/block_codec.h"

namespace narrow::blocks {

#define NARROW_ENCODE(name)                                                                        \
  void encode_##name(const float* x, const float* importance, int64_t blocks, EncodeMethod method, \
                     Emphasis emphasis, uint8_t* out)
NARROW_ENCODE(f32);
NARROW_ENCODE(f16);
NARROW_ENCODE(bf16);
NARROW_ENCODE(q4_0);
NARROW_ENCODE(q4_1);
NARROW_ENCODE(q5_0);
NARROW_ENCODE(q5_1);
NARROW_ENCODE(q8_0);
NARROW_ENCODE(q2_k);
NARROW_ENCODE(q3_k);
NARROW_ENCODE(q4_k);
NARROW_ENCODE(q5_k);
NARROW_ENCODE(q6_k);
NARROW_ENCODE(iq4_nl);
NARROW_ENCODE(iq4_xs);
#undef NARROW_ENCODE

}  // namespace narrow::blocks
