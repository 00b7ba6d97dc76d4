// SPDX-License-Identifier: Apache-2.0
// Where the numbers of a block lie in its bytes (see block_codec.h). Internal to quant/blocks.
#pragma once

#include <cstdint>
#include <cstring>

#include "narrow/core/half.h"
#include "narrow/quant/blocks/lanes.h"

namespace narrow::blocks {
inline namespace NARROW_BLOCKS_ISA {

constexpr int kSmall = 32;   // values of a simple block
constexpr int kSuper = 256;  // values of a super-block

/// The sixteen values of iq4_nl and iq4_xs.
inline constexpr int8_t kNonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

inline Half load_half(const uint8_t* p) {
  return {static_cast<uint16_t>(p[0] | p[1] << 8)};
}
inline float load_half_float(const uint8_t* p) {
  return to_float(load_half(p));
}
inline void store_half(uint8_t* p, Half h) {
  p[0] = static_cast<uint8_t>(h.bits & 0xff);
  p[1] = static_cast<uint8_t>(h.bits >> 8);
}

/// Two runs of 16 codes in the nibbles of 16 bytes.
inline void unpack_nibbles16(const uint8_t* n, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) codes[i] = n[i] & 15;
  for (int i = 0; i < 16; ++i) codes[16 + i] = n[i] >> 4;
}
inline void pack_nibbles16(const uint8_t* codes, uint8_t* n) {
  for (int i = 0; i < 16; ++i) {
    n[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[16 + i] & 15) << 4);
  }
}

/// 64 codes in the nibbles of 32 bytes.
inline void unpack_nibbles32(const uint8_t* n, uint8_t* codes) {
  for (int i = 0; i < 32; ++i) codes[i] = n[i] & 15;
  for (int i = 0; i < 32; ++i) codes[32 + i] = n[i] >> 4;
}
inline void pack_nibbles32(const uint8_t* codes, uint8_t* n) {
  for (int i = 0; i < 32; ++i) {
    n[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[32 + i] & 15) << 4);
  }
}

/// 256 codes of two bits in 64 bytes; `shift` is where these bits stand in the code.
inline void unpack_pairs(const uint8_t* c2, int shift, uint8_t* codes) {
  for (int k = 0; k < 2; ++k) {
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 32; ++i) {
        const int pair = (c2[32 * k + i] >> (2 * j)) & 3;
        codes[128 * k + 32 * j + i] =
            static_cast<uint8_t>(codes[128 * k + 32 * j + i] | pair << shift);
      }
    }
  }
}
inline void pack_pairs(const uint8_t* codes, int shift, uint8_t* c2) {
  for (int k = 0; k < 2; ++k) {
    const uint8_t* c = codes + 128 * k;
    for (int i = 0; i < 32; ++i) {
      const auto pair = [&](int j) { return (c[32 * j + i] >> shift) & 3; };
      c2[32 * k + i] = static_cast<uint8_t>(pair(0) | pair(1) << 2 | pair(2) << 4 | pair(3) << 6);
    }
  }
}

/// One bit of each of 256 codes in 32 bytes.
inline void unpack_bits(const uint8_t* h, int shift, uint8_t* codes) {
  for (int j = 0; j < 8; ++j) {
    for (int i = 0; i < 32; ++i) {
      codes[32 * j + i] = static_cast<uint8_t>(codes[32 * j + i] | ((h[i] >> j) & 1) << shift);
    }
  }
}
inline void pack_bits(const uint8_t* codes, int shift, uint8_t* h) {
  std::memset(h, 0, 32);
  for (int j = 0; j < 8; ++j) {
    for (int i = 0; i < 32; ++i) {
      h[i] = static_cast<uint8_t>(h[i] | ((codes[32 * j + i] >> shift) & 1) << j);
    }
  }
}

/// The nibbles of q6_k: pairs of runs of 32 share 32 bytes with the runs 64 values further on.
inline void unpack_nibbles_q6(const uint8_t* n, uint8_t* codes) {
  for (int k = 0; k < 2; ++k) {
    for (int i = 0; i < 64; ++i) {
      codes[128 * k + i] = n[64 * k + i] & 15;
      codes[128 * k + 64 + i] = n[64 * k + i] >> 4;
    }
  }
}
inline void pack_nibbles_q6(const uint8_t* codes, uint8_t* n) {
  for (int k = 0; k < 2; ++k) {
    const uint8_t* c = codes + 128 * k;
    for (int i = 0; i < 64; ++i) {
      n[64 * k + i] = static_cast<uint8_t>((c[i] & 15) | (c[64 + i] & 15) << 4);
    }
  }
}

/// `s6`: sixteen 6-bit numbers in 12 bytes.
inline void unpack_scales16(const uint8_t* s6, uint8_t* s) {
  for (int g = 0; g < 16; ++g) {
    const int low = g < 8 ? s6[g] & 15 : s6[g - 8] >> 4;
    const int high = (s6[8 + g % 4] >> (2 * (g / 4))) & 3;
    s[g] = static_cast<uint8_t>(low | high << 4);
  }
}
inline void pack_scales16(const uint8_t* s, uint8_t* s6) {
  std::memset(s6, 0, 12);
  for (int g = 0; g < 16; ++g) {
    const int byte = g < 8 ? g : g - 8;
    s6[byte] = static_cast<uint8_t>(s6[byte] | (s[g] & 15) << (g < 8 ? 0 : 4));
    s6[8 + g % 4] = static_cast<uint8_t>(s6[8 + g % 4] | (s[g] >> 4) << (2 * (g / 4)));
  }
}

/// `so6`: eight scales and eight offsets of 6 bits in 12 bytes.
inline void unpack_scales_offsets8(const uint8_t* so6, uint8_t* s, uint8_t* o) {
  for (int g = 0; g < 4; ++g) {
    s[g] = so6[g] & 63;
    o[g] = so6[4 + g] & 63;
    s[4 + g] = static_cast<uint8_t>((so6[8 + g] & 15) | (so6[g] >> 6) << 4);
    o[4 + g] = static_cast<uint8_t>((so6[8 + g] >> 4) | (so6[4 + g] >> 6) << 4);
  }
}
inline void pack_scales_offsets8(const uint8_t* s, const uint8_t* o, uint8_t* so6) {
  for (int g = 0; g < 4; ++g) {
    so6[g] = static_cast<uint8_t>(s[g] | (s[4 + g] >> 4) << 6);
    so6[4 + g] = static_cast<uint8_t>(o[g] | (o[4 + g] >> 4) << 6);
    so6[8 + g] = static_cast<uint8_t>((s[4 + g] & 15) | (o[4 + g] & 15) << 4);
  }
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks
