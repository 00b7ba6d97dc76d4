// SPDX-License-Identifier: Apache-2.0
// The encoders of the table in block_codec.cpp. Finite values in, whole blocks out.
#pragma once

#include <cstdint>

#include "narrow/quant/blocks/block_codec.h"

namespace narrow::blocks {

#define NARROW_BLOCK_ENCODER(name)                                                                 \
  void encode_##name(const float* x, const float* importance, int64_t blocks, EncodeMethod method, \
                     Emphasis emphasis, uint8_t* out)
NARROW_BLOCK_ENCODER(f32);
NARROW_BLOCK_ENCODER(f16);
NARROW_BLOCK_ENCODER(bf16);
NARROW_BLOCK_ENCODER(q4_0);
NARROW_BLOCK_ENCODER(q4_1);
NARROW_BLOCK_ENCODER(q5_0);
NARROW_BLOCK_ENCODER(q5_1);
NARROW_BLOCK_ENCODER(q8_0);
NARROW_BLOCK_ENCODER(q2_k);
NARROW_BLOCK_ENCODER(q3_k);
NARROW_BLOCK_ENCODER(q4_k);
NARROW_BLOCK_ENCODER(q5_k);
NARROW_BLOCK_ENCODER(q6_k);
NARROW_BLOCK_ENCODER(iq4_nl);
NARROW_BLOCK_ENCODER(iq4_xs);
#undef NARROW_BLOCK_ENCODER

}  // namespace narrow::blocks
