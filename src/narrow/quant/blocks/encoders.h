// SPDX-License-Identifier: Apache-2.0
// The encoders of one instruction set: finite values in, whole blocks out. Internal to
// quant/blocks.
#pragma once

#include <cstdint>

#include "narrow/quant/blocks/block_codec.h"

#define NARROW_BLOCK_ENCODER(name)                                                                \
  void block_##name(const float* x, const float* importance, int64_t blocks, EncodeMethod method, \
                    Emphasis emphasis, uint8_t* out)

#define NARROW_BLOCK_ENCODERS   \
  NARROW_BLOCK_ENCODER(q4_0);   \
  NARROW_BLOCK_ENCODER(q4_1);   \
  NARROW_BLOCK_ENCODER(q5_0);   \
  NARROW_BLOCK_ENCODER(q5_1);   \
  NARROW_BLOCK_ENCODER(q8_0);   \
  NARROW_BLOCK_ENCODER(q2_k);   \
  NARROW_BLOCK_ENCODER(q3_k);   \
  NARROW_BLOCK_ENCODER(q4_k);   \
  NARROW_BLOCK_ENCODER(q5_k);   \
  NARROW_BLOCK_ENCODER(q6_k);   \
  NARROW_BLOCK_ENCODER(iq4_nl); \
  NARROW_BLOCK_ENCODER(iq4_xs)
