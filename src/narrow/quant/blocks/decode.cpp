// SPDX-License-Identifier: Apache-2.0
#include "narrow/quant/blocks/decode.h"

#include <cstring>

#include "narrow/quant/blocks/layout.h"

namespace narrow::blocks {
namespace {

uint32_t load_u32(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 |
         static_cast<uint32_t>(p[2]) << 16 | static_cast<uint32_t>(p[3]) << 24;
}

/// y = scale * (code - zero)
void linear(const uint8_t* codes, int count, int zero, float scale, float* y) {
  for (int i = 0; i < count; ++i) y[i] = scale * static_cast<float>(codes[i] - zero);
}

/// y = scale * code + offset
void with_offset(const uint8_t* codes, int count, float scale, float offset, float* y) {
  for (int i = 0; i < count; ++i) y[i] = scale * static_cast<float>(codes[i]) + offset;
}

void nonlinear(const uint8_t* codes, int count, float scale, float* y) {
  for (int i = 0; i < count; ++i) y[i] = scale * static_cast<float>(kNonlinear[codes[i]]);
}

void add_fifth_bits(uint32_t h, uint8_t* codes) {
  for (int i = 0; i < kSmall; ++i) codes[i] = static_cast<uint8_t>(codes[i] | ((h >> i) & 1) << 4);
}

/// The eight groups of q4_k and q5_k.
void scaled_groups(const uint8_t* block, const uint8_t* codes, float* y) {
  const float d = load_half_float(block);
  const float dmin = load_half_float(block + 2);
  uint8_t s[8];
  uint8_t o[8];
  unpack_scales_offsets8(block + 4, s, o);
  for (int g = 0; g < 8; ++g) {
    // Adding the negated product is the subtraction of the definition.
    with_offset(codes + 32 * g, 32, d * static_cast<float>(s[g]),
                -(dmin * static_cast<float>(o[g])), y + 32 * g);
  }
}

}  // namespace

void decode_f32(const uint8_t* bytes, int64_t blocks, float* out) {
  std::memcpy(out, bytes, static_cast<size_t>(blocks) * sizeof(float));
}

void decode_f16(const uint8_t* bytes, int64_t blocks, float* out) {
  for (int64_t i = 0; i < blocks; ++i) out[i] = load_half_float(bytes + 2 * i);
}

void decode_bf16(const uint8_t* bytes, int64_t blocks, float* out) {
  for (int64_t i = 0; i < blocks; ++i) out[i] = to_float(BFloat16{load_half(bytes + 2 * i).bits});
}

void decode_q4_0(const uint8_t* bytes, int64_t blocks, float* out) {
  uint8_t codes[kSmall];
  for (int64_t b = 0; b < blocks; ++b, bytes += 18, out += kSmall) {
    unpack_nibbles16(bytes + 2, codes);
    linear(codes, kSmall, 8, load_half_float(bytes), out);
  }
}

void decode_q4_1(const uint8_t* bytes, int64_t blocks, float* out) {
  uint8_t codes[kSmall];
  for (int64_t b = 0; b < blocks; ++b, bytes += 20, out += kSmall) {
    unpack_nibbles16(bytes + 4, codes);
    with_offset(codes, kSmall, load_half_float(bytes), load_half_float(bytes + 2), out);
  }
}

void decode_q5_0(const uint8_t* bytes, int64_t blocks, float* out) {
  uint8_t codes[kSmall];
  for (int64_t b = 0; b < blocks; ++b, bytes += 22, out += kSmall) {
    unpack_nibbles16(bytes + 6, codes);
    add_fifth_bits(load_u32(bytes + 2), codes);
    linear(codes, kSmall, 16, load_half_float(bytes), out);
  }
}

void decode_q5_1(const uint8_t* bytes, int64_t blocks, float* out) {
  uint8_t codes[kSmall];
  for (int64_t b = 0; b < blocks; ++b, bytes += 24, out += kSmall) {
    unpack_nibbles16(bytes + 8, codes);
    add_fifth_bits(load_u32(bytes + 4), codes);
    with_offset(codes, kSmall, load_half_float(bytes), load_half_float(bytes + 2), out);
  }
}

void decode_q8_0(const uint8_t* bytes, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, bytes += 34, out += kSmall) {
    const float d = load_half_float(bytes);
    for (int i = 0; i < kSmall; ++i) {
      out[i] = static_cast<float>(static_cast<int8_t>(bytes[2 + i])) * d;
    }
  }
}

void decode_iq4_nl(const uint8_t* bytes, int64_t blocks, float* out) {
  uint8_t codes[kSmall];
  for (int64_t b = 0; b < blocks; ++b, bytes += 18, out += kSmall) {
    unpack_nibbles16(bytes + 2, codes);
    nonlinear(codes, kSmall, load_half_float(bytes), out);
  }
}

void decode_q2_k(const uint8_t* bytes, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, bytes += 84, out += kSuper) {
    uint8_t codes[kSuper] = {};
    unpack_pairs(bytes + 16, 0, codes);
    const float d = load_half_float(bytes + 80);
    const float dmin = load_half_float(bytes + 82);
    for (int g = 0; g < 16; ++g) {
      with_offset(codes + 16 * g, 16, d * static_cast<float>(bytes[g] & 15),
                  -(dmin * static_cast<float>(bytes[g] >> 4)), out + 16 * g);
    }
  }
}

void decode_q3_k(const uint8_t* bytes, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, bytes += 110, out += kSuper) {
    uint8_t codes[kSuper] = {};
    uint8_t s[16];
    unpack_pairs(bytes + 32, 0, codes);
    unpack_bits(bytes, 2, codes);
    unpack_scales16(bytes + 96, s);
    const float d = load_half_float(bytes + 108);
    for (int g = 0; g < 16; ++g) {
      linear(codes + 16 * g, 16, 4, d * static_cast<float>(s[g] - 32), out + 16 * g);
    }
  }
}

void decode_q4_k(const uint8_t* bytes, int64_t blocks, float* out) {
  uint8_t codes[kSuper];
  for (int64_t b = 0; b < blocks; ++b, bytes += 144, out += kSuper) {
    for (int k = 0; k < 4; ++k) unpack_nibbles32(bytes + 16 + 32 * k, codes + 64 * k);
    scaled_groups(bytes, codes, out);
  }
}

void decode_q5_k(const uint8_t* bytes, int64_t blocks, float* out) {
  uint8_t codes[kSuper];
  for (int64_t b = 0; b < blocks; ++b, bytes += 176, out += kSuper) {
    for (int k = 0; k < 4; ++k) unpack_nibbles32(bytes + 48 + 32 * k, codes + 64 * k);
    unpack_bits(bytes + 16, 4, codes);
    scaled_groups(bytes, codes, out);
  }
}

void decode_q6_k(const uint8_t* bytes, int64_t blocks, float* out) {
  uint8_t codes[kSuper];
  for (int64_t b = 0; b < blocks; ++b, bytes += 210, out += kSuper) {
    unpack_nibbles_q6(bytes, codes);
    unpack_pairs(bytes + 128, 4, codes);
    const float d = load_half_float(bytes + 208);
    for (int g = 0; g < 16; ++g) {
      const float s = static_cast<float>(static_cast<int8_t>(bytes[192 + g]));
      linear(codes + 16 * g, 16, 32, d * s, out + 16 * g);
    }
  }
}

void decode_iq4_xs(const uint8_t* bytes, int64_t blocks, float* out) {
  uint8_t codes[kSmall];
  for (int64_t b = 0; b < blocks; ++b, bytes += 136) {
    const float d = load_half_float(bytes);
    const int high = load_half(bytes + 2).bits;
    for (int g = 0; g < 8; ++g, out += kSmall) {
      const int s = ((bytes[4 + g / 2] >> (4 * (g % 2))) & 15) | ((high >> (2 * g)) & 3) << 4;
      unpack_nibbles16(bytes + 8 + 16 * g, codes);
      nonlinear(codes, kSmall, d * static_cast<float>(s - 32), out);
    }
  }
}

}  // namespace narrow::blocks
