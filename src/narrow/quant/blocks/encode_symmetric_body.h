// SPDX-License-Identifier: Apache-2.0
// Encoders of the super-blocks whose groups have a scale alone: q3_k, q6_k, iq4_xs. Included once
// by the file for each instruction set.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "narrow/quant/blocks/encoders.h"
#include "narrow/quant/blocks/layout.h"
#include "narrow/quant/blocks/search.h"

namespace narrow::blocks {
namespace {

/// What distinguishes the types. kExtreme is the level of the largest magnitude in textbook
/// encoding; kStep is how far apart the other levels are that it tries.
struct Q3K {
  static constexpr int kVectors = 2;
  static constexpr LinearGrid kGrid{-4, 3};
  static constexpr float kExtreme = -4;
  static constexpr float kStep = 0.2f;
  static constexpr int kMinScale = -32;
  static constexpr int kMaxScale = 31;
};
struct Q6K {
  static constexpr int kVectors = 2;
  static constexpr LinearGrid kGrid{-32, 31};
  static constexpr float kExtreme = -32;
  static constexpr float kStep = 0.4f;
  static constexpr int kMinScale = -128;
  static constexpr int kMaxScale = 127;
};
struct Iq4Xs {
  static constexpr int kVectors = 4;
  static constexpr NonlinearGrid kGrid{};
  static constexpr float kExtreme = -127;
  static constexpr float kStep = 4.0f;
  static constexpr int kMinScale = -32;
  static constexpr int kMaxScale = 31;
};

template <class T>
class SymmetricEncoder {
 public:
  static constexpr int kGroupValues = 8 * T::kVectors;
  static constexpr int kGroups = kSuper / kGroupValues;

  SymmetricEncoder(const float* x, const float* importance, EncodeMethod method, Emphasis emphasis)
      : scaled_(x, kSuper, x_), method_(method), emphasis_(emphasis) {
    const bool rtn = method == EncodeMethod::rtn;
    error_weights(rtn ? nullptr : importance, x_, kSuper, rtn ? Emphasis::none : emphasis, w_);
    for (int g = 0; g < kGroups; ++g) {
      groups_[g].load(x_ + kGroupValues * g, w_ + kGroupValues * g);
    }
  }

  /// Codes counted from the lowest level, signed scales, and what the file holds as d.
  Half run(uint8_t* codes, std::array<int, kGroups>& s) {
    std::array<float, kGroups> fits;
    for (int g = 0; g < kGroups; ++g) {
      fits[g] = method_ == EncodeMethod::rtn
                    ? symmetric_extreme(groups_[g], T::kExtreme)
                    : search_symmetric(groups_[g], T::kGrid, T::kExtreme, T::kStep);
    }
    Record best = method_ == EncodeMethod::rtn ? nearest(fits) : refine(fits);
    const Half d = scaled_.store(best.d);
    s = best.s;
    for (int g = 0; g < kGroups; ++g) {
      codes_at(groups_[g], T::kGrid, best.d * static_cast<float>(s[g]), 0,
               codes + kGroupValues * g);
    }
    return d;
  }

 private:
  static constexpr int kRounds = 3;  // of choosing scales and refitting d
  struct Record {
    float d = 0;
    std::array<int, kGroups> s{};
  };

  static int index(float t) {
    const auto low = static_cast<float>(T::kMinScale);
    const auto high = static_cast<float>(T::kMaxScale);
    return static_cast<int>(std::floor(std::min(std::max(t, low), high) + 0.5f));
  }

  /// The scale of the largest magnitude becomes kMinScale, the others the nearest integer.
  Record nearest(const std::array<float, kGroups>& fits) const {
    Record r;
    for (const float f : fits) {
      if (std::fabs(f) > std::fabs(r.d)) r.d = f;
    }
    r.d /= static_cast<float>(T::kMinScale);
    scaled_.store(r.d);
    for (int g = 0; g < kGroups; ++g) r.s[g] = index(fits[g] * inverse(r.d));
    return r;
  }

  Record refine(const std::array<float, kGroups>& fits) const {
    Record r = nearest(fits);
    Record best = r;
    float best_error = -1;
    for (int round = 0; round < kRounds; ++round) {
      float error = 0;
      float ss = 0;
      float xs = 0;
      for (int g = 0; g < kGroups; ++g) {
        LevelSums sums;
        error += choose(groups_[g], fits[g], r.d, round > 0, r.s[g], sums);
        const auto s = static_cast<float>(r.s[g]);
        ss += s * s * sums.ll;
        xs += s * sums.xl;
      }
      if (best_error >= 0 && !(error < best_error)) break;
      const bool little = best_error >= 0 && error > 0.999f * best_error;
      best = r;
      best_error = error;
      if (little || !(ss > 0)) break;
      float d = xs / ss;
      scaled_.store(d);
      if (d == r.d) break;
      r.d = d;
    }
    float squares = 0;
    for (const auto& g : groups_) squares += g.sum_wxx;
    best.d *= direction_factor(emphasis_, best_error, squares);
    scaled_.store(best.d);
    return best;
  }

  /// The integer scale of the least error near the fit; `keep` makes the present one a candidate.
  static float choose(const Group<T::kVectors>& g, float fit, float d, bool keep, int& s,
                      LevelSums& sums) {
    constexpr int kAround = 3;  // with the present one, eight
    const int middle = index(fit * inverse(d));
    Trials trials;
    int s_of[Trials::kCount];
    for (int i = 0; i < Trials::kCount; ++i) {
      const int candidate = i < 2 * kAround + 1 ? middle - kAround + i : keep ? s : middle;
      s_of[i] = std::clamp(candidate, T::kMinScale, T::kMaxScale);
      trials.scale[i] = d * static_cast<float>(s_of[i]);
      trials.offset[i] = 0;
    }
    errors_of_trials(g, T::kGrid, trials);
    const int best = trials.best();
    s = s_of[best];
    sums = trials.sums(best);
    return trials.error[best];
  }

  alignas(16) float x_[kSuper];
  alignas(16) float w_[kSuper];
  ScaledBlock scaled_;
  EncodeMethod method_;
  Emphasis emphasis_;
  std::array<Group<T::kVectors>, kGroups> groups_;
};

}  // namespace

inline namespace NARROW_BLOCKS_ISA {

NARROW_BLOCK_ENCODER(q3_k) {
  uint8_t codes[kSuper];
  std::array<int, 16> s;
  for (int64_t b = 0; b < blocks; ++b, x += kSuper, out += 110) {
    const Half d = SymmetricEncoder<Q3K>(x, importance, method, emphasis).run(codes, s);
    pack_bits(codes, 2, out);
    pack_pairs(codes, 0, out + 32);
    uint8_t stored[16];
    for (int g = 0; g < 16; ++g) stored[g] = static_cast<uint8_t>(s[g] + 32);
    pack_scales16(stored, out + 96);
    store_half(out + 108, d);
    if (importance != nullptr) importance += kSuper;
  }
}

NARROW_BLOCK_ENCODER(q6_k) {
  uint8_t codes[kSuper];
  std::array<int, 16> s;
  for (int64_t b = 0; b < blocks; ++b, x += kSuper, out += 210) {
    const Half d = SymmetricEncoder<Q6K>(x, importance, method, emphasis).run(codes, s);
    pack_nibbles_q6(codes, out);
    pack_pairs(codes, 4, out + 128);
    for (int g = 0; g < 16; ++g) out[192 + g] = static_cast<uint8_t>(static_cast<int8_t>(s[g]));
    store_half(out + 208, d);
    if (importance != nullptr) importance += kSuper;
  }
}

NARROW_BLOCK_ENCODER(iq4_xs) {
  uint8_t codes[kSuper];
  std::array<int, 8> s;
  for (int64_t b = 0; b < blocks; ++b, x += kSuper, out += 136) {
    const Half d = SymmetricEncoder<Iq4Xs>(x, importance, method, emphasis).run(codes, s);
    store_half(out, d);
    std::memset(out + 2, 0, 6);
    unsigned high = 0;
    for (int g = 0; g < 8; ++g) {
      const int stored = s[g] + 32;
      out[4 + g / 2] = static_cast<uint8_t>(out[4 + g / 2] | (stored & 15) << (4 * (g % 2)));
      high |= static_cast<unsigned>(stored >> 4) << (2 * g);
      pack_nibbles16(codes + 32 * g, out + 8 + 16 * g);
    }
    store_half(out + 2, {static_cast<uint16_t>(high)});
    if (importance != nullptr) importance += kSuper;
  }
}

}  // namespace NARROW_BLOCKS_ISA
}  // namespace narrow::blocks
