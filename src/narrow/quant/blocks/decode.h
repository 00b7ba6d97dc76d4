// SPDX-License-Identifier: Apache-2.0
// The decoders of the table in block_codec.cpp: plain scalar code that defines every value.
#pragma once

#include <cstdint>

namespace narrow::blocks {

void decode_f32(const uint8_t* bytes, int64_t blocks, float* out);
void decode_f16(const uint8_t* bytes, int64_t blocks, float* out);
void decode_bf16(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q4_0(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q4_1(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q5_0(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q5_1(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q8_0(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q2_k(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q3_k(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q4_k(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q5_k(const uint8_t* bytes, int64_t blocks, float* out);
void decode_q6_k(const uint8_t* bytes, int64_t blocks, float* out);
void decode_iq4_nl(const uint8_t* bytes, int64_t blocks, float* out);
void decode_iq4_xs(const uint8_t* bytes, int64_t blocks, float* out);

}  // namespace narrow::blocks
