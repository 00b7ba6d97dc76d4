// SPDX-License-Identifier: Apache-2.0
// Plain floating types, and for the others the encoder of the best instruction set: all write the
// same bytes.
#include "narrow/quant/blocks/encode.h"

#include <algorithm>
#include <cstring>

#include "narrow/core/cpu.h"
#include "narrow/core/half.h"
#include "narrow/quant/blocks/encoders.h"

namespace narrow::blocks {

namespace portable {
NARROW_BLOCK_ENCODERS;
}
#if defined(__x86_64__)
namespace avx2 {
NARROW_BLOCK_ENCODERS;
}
#endif

namespace {

void store_half(uint8_t* p, uint16_t bits) {
  p[0] = static_cast<uint8_t>(bits & 0xff);
  p[1] = static_cast<uint8_t>(bits >> 8);
}

}  // namespace

void encode_f32(const float* x, const float*, int64_t blocks, EncodeMethod, Emphasis,
                uint8_t* out) {
  std::memcpy(out, x, static_cast<size_t>(blocks) * sizeof(float));
}

void encode_f16(const float* x, const float*, int64_t blocks, EncodeMethod, Emphasis,
                uint8_t* out) {
  constexpr float kLargest = 65504.0f;
  for (int64_t i = 0; i < blocks; ++i) {
    store_half(out + 2 * i, to_half(std::clamp(x[i], -kLargest, kLargest)).bits);
  }
}

void encode_bf16(const float* x, const float*, int64_t blocks, EncodeMethod, Emphasis,
                 uint8_t* out) {
  constexpr float kLargest = 0x1.fep127f;
  for (int64_t i = 0; i < blocks; ++i) {
    store_half(out + 2 * i, to_bfloat16(std::clamp(x[i], -kLargest, kLargest)).bits);
  }
}

#if defined(__x86_64__)
#define NARROW_DISPATCH(name)                                                                      \
  void encode_##name(const float* x, const float* importance, int64_t blocks, EncodeMethod method, \
                     Emphasis emphasis, uint8_t* out) {                                            \
    const auto encoder = isa_enabled(Isa::avx2) ? avx2::block_##name : portable::block_##name;     \
    encoder(x, importance, blocks, method, emphasis, out);                                         \
  }
#else
#define NARROW_DISPATCH(name)                                                                      \
  void encode_##name(const float* x, const float* importance, int64_t blocks, EncodeMethod method, \
                     Emphasis emphasis, uint8_t* out) {                                            \
    portable::block_##name(x, importance, blocks, method, emphasis, out);                          \
  }
#endif

NARROW_DISPATCH(q2_k)
NARROW_DISPATCH(q4_k)
NARROW_DISPATCH(q5_k)
NARROW_DISPATCH(q3_k)
NARROW_DISPATCH(q6_k)
NARROW_DISPATCH(iq4_xs)
NARROW_DISPATCH(q4_0)
NARROW_DISPATCH(q4_1)
NARROW_DISPATCH(q5_0)
NARROW_DISPATCH(q5_1)
NARROW_DISPATCH(q8_0)
NARROW_DISPATCH(iq4_nl)

}  // namespace narrow::blocks
